// The page's side: plays a stream with hls.js and says what was seen. play.mjs calls
// window.playThrough and window.playEachLevel, each in a fresh page.

const video = document.querySelector('video');

// PATIENCE bounds each wait, in milliseconds: what takes longer is reported as such,
// with all that is known, instead of a test that hangs.
const PATIENCE = 60_000;

// START is where switching begins, in seconds: behind a film's first black frames.
const START = 4.5;

// until resolves at the first event of that name for which done() holds, at once if
// it holds already.
function until(target, event, done, what) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => finish(new Error(`${what}: not within ${PATIENCE / 1000} s`)), PATIENCE);
    const look = () => done() && finish();
    function finish(error) {
      clearTimeout(timer);
      target.removeEventListener(event, look);
      error ? reject(error) : resolve();
    }
    target.addEventListener(event, look);
    look();
  });
}

// open loads the stream, pinned to one level. Every complaint of
// hls.js goes to errors: the ones that it calls not fatal, too, for a gap that it jumps
// over is one of those.
async function open(url, level, start, errors) {
  const hls = new Hls({
    startLevel: level,
    startPosition: start, // seconds
    maxBufferLength: 600, // seconds: all of a test's clip, whatever it is
    backBufferLength: 600,
    maxBufferSize: 500_000_000,
    // A busy machine decodes late. A stream that cannot be decoded stalls for good, and
    // then shows here or in PATIENCE; 1.25 s, the default, says nothing on two cores.
    detectStallWithCurrentTimeMs: 15_000,
    highBufferWatchdogPeriod: 15, // seconds
  });
  hls.on(Hls.Events.ERROR, (_, e) => {
    errors.push({ type: e.type, details: e.details, fatal: e.fatal, message: e.error?.message ?? e.reason ?? '', at: video.currentTime, buffer: e.buffer ?? 0 });
  });
  video.addEventListener('error', () => {
    errors.push({ type: 'video', details: String(video.error?.code), fatal: true, message: video.error?.message ?? '', at: video.currentTime });
  });
  const parsed = new Promise((resolve, reject) => {
    hls.on(Hls.Events.MANIFEST_PARSED, resolve);
    hls.on(Hls.Events.ERROR, (_, e) => e.fatal && reject(new Error(`hls.js: ${e.details}: ${e.error?.message}`)));
  });
  hls.loadSource(url);
  hls.attachMedia(video);
  await parsed;
  hls.currentLevel = level; // also ends automatic switching
  return hls;
}

function buffered() {
  const out = [];
  for (let i = 0; i < video.buffered.length; i++) out.push([video.buffered.start(i), video.buffered.end(i)]);
  return out;
}

const levelsOf = (hls) => hls.levels.map((l) => ({
  width: l.width, height: l.height, bitrate: l.bitrate, codecs: `${l.videoCodec},${l.audioCodec ?? ''}`,
}));

// full resolves when what follows the playhead is buffered up to the end.
const full = () => until(video, 'progress', () => {
  const last = buffered().at(-1);
  return video.duration > 0 && last !== undefined && last[1] > video.duration - 0.1;
}, 'buffer the stream');

const canvas = document.createElement('canvas');
canvas.width = 160;
canvas.height = 90;
const context = canvas.getContext('2d', { willReadFrequently: true });

// picture draws the frame that is shown now and returns the mean and the standard
// deviation of its luma, 0 to 255.
function picture() {
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < data.length; i += 4) {
    const luma = 0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2];
    sum += luma;
    squares += luma * luma;
  }
  const n = data.length / 4;
  return { mean: sum / n, deviation: Math.sqrt(Math.max(0, squares / n - (sum / n) ** 2)) };
}

// shown resolves when the next frame is on the screen.
const shown = () => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`no frame is shown within ${PATIENCE / 1000} s`)), PATIENCE);
  video.requestVideoFrameCallback((_, frame) => { clearTimeout(timer); resolve(frame); });
});

// trouble is what this page itself has to complain of, in the form of hls.js's errors.
const trouble = (error) => ({
  type: 'page',
  details: String(error),
  fatal: true,
  message: `readyState ${video.readyState}, buffered ${JSON.stringify(buffered())}`,
  at: video.currentTime,
});

// playThrough buffers the whole of one level, then plays it to the
// end.
window.playThrough = async ({ url, level, rate }) => {
  const errors = [];
  const result = { errors };
  try {
    const hls = await open(url, level, 0, errors);
    result.levels = levelsOf(hls);
    await full();
    result.buffered = buffered();
    video.playbackRate = rate;
    // Films begin and end in black: the liveliest frame of all is the one to judge.
    result.picture = picture();
    video.addEventListener('timeupdate', () => {
      const now = picture();
      if (now.deviation > result.picture.deviation) result.picture = now;
    });
    await video.play();
    await until(video, 'ended', () => video.ended, 'play to the end');
    const quality = video.getVideoPlaybackQuality();
    Object.assign(result, {
      ended: video.ended,
      currentTime: video.currentTime,
      duration: video.duration,
      width: video.videoWidth,
      height: video.videoHeight,
      frames: quality.totalVideoFrames,
      dropped: quality.droppedVideoFrames,
      audioBytes: video.webkitAudioDecodedByteCount,
    });
  } catch (error) {
    errors.push(trouble(error));
  }
  return result;
};

// playEachLevel switches through all levels while playing, up and down, and looks at
// a frame of each. It waits for the buffer before each switch: hls.js calls a request
// that a switch aborts an error.
window.playEachLevel = async ({ url, rate }) => {
  const errors = [];
  const result = { errors, switches: [] };
  try {
    const hls = await open(url, 0, START, errors);
    result.levels = levelsOf(hls);
    await full();
    video.playbackRate = rate;
    await video.play();
    const up = hls.levels.map((_, i) => i);
    for (const level of [...up, ...up.toReversed().slice(1)]) {
      if (hls.currentLevel !== level) hls.currentLevel = level;
      const want = hls.levels[level];
      await until(video, 'resize', () => video.videoHeight === want.height && video.videoWidth === want.width, `show level ${level}`);
      await full();
      const from = video.currentTime;
      await until(video, 'timeupdate', () => video.currentTime > from, `go on in level ${level}`);
      await shown();
      result.switches.push({ level, width: video.videoWidth, height: video.videoHeight, ...picture() });
    }
    result.audioBytes = video.webkitAudioDecodedByteCount;
  } catch (error) {
    errors.push(trouble(error));
  }
  return result;
};
