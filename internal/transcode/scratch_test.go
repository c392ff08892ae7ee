package transcode

import ("testing";"os";"time";"encoding/json")

func TestScratch(t *testing.T) {
	b := newBenchOn(t, "/tmp/tx/out")
	p := Default()
	start := time.Now()
	spec := specOf(os.Getenv("CLIP"), p)
	if os.Getenv("DECODE") != "" { spec.Verify = VerifyDecode }
	out, err := b.run(spec)
	if err != nil { t.Fatal(err) }
	j, _ := json.MarshalIndent(out, "", " ")
	t.Logf("%s\ncpu %v peak %d wall %v\n%s", j, b.usage.CPU, b.usage.PeakRSS>>20, time.Since(start), b.notes)
}
