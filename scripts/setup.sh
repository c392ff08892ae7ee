#!/bin/sh
# Installs what Myrmidon needs and is not there yet, and says so.
#
#   scripts/setup.sh runtime   ffmpeg 5.1 or later
#   scripts/setup.sh test      + Chromium, Node.js, npm, HAProxy, internal/playback's packages, awscli,
#                              and the servers that tests run against (built from source)
#   scripts/setup.sh bench     what the benchmarks need: ffmpeg
#   scripts/setup.sh bench-engine   RabbitMQ, as programs only: no service is started
#   scripts/setup.sh bench-clone   rclone and awscli; s5cmd is built by the benchmark
#   scripts/setup.sh bench-haproxy   HAProxy, as a program only
#   scripts/setup.sh bench-logs   Go alone
#   scripts/setup.sh torture   what make torture needs: ip of iproute2, a NATS server
#   scripts/setup.sh check     + a C compiler, for Go's race detector
#
# On Debian and Ubuntu it calls apt-get, as root or through sudo; elsewhere it prints
# what to install and exits 1. When nothing is missing it prints nothing, touches no
# network and takes a tenth of a second. A program named by MYRMIDON_FFMPEG or
# CHROMIUM is used as it is: if it does not run, that is an error, never a reason to
# install another.
set -eu

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Each check adds to these: Debian packages, and what people call them.
packages=
names=

want() { # want PACKAGE NAME
	packages="$packages $1"
	names="${names:+$names, }$2"
}

# old_ffmpeg succeeds if the program $1 says a release below 5.1. Builds from the
# repository ("N-109542-g…") carry no release and are taken for new, as by
# internal/ffmpeg.
old_ffmpeg() {
	release=$("$1" -version 2>/dev/null | sed -n '1s/^ffmpeg version n\{0,1\}\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
	[ -n "$release" ] || return 1
	major=${release% *} minor=${release#* }
	[ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "${minor:-0}" -lt 1 ]; }
}

check_go() {
	remedy="install it from go.dev (with 1.21 or later go fetches 1.26 by itself), and run this again"
	have go || die "Go 1.26 or later is missing: $remedy"
	# In this folder go answers as the toolchain that go.mod asks for.
	release=$(go env GOVERSION) || die "go does not run here: see above"
	minor=${release#go1.}
	minor=${minor%%[!0-9]*}
	case $release in
	go1.*) [ "${minor:-0}" -ge 26 ] || die "$(command -v go) is $release; 1.26 or later is needed: $remedy" ;;
	esac
}

check_ffmpeg() {
	if [ -n "${MYRMIDON_FFMPEG:-}" ]; then
		ffmpeg=$MYRMIDON_FFMPEG
		[ ! -d "$ffmpeg" ] || ffmpeg=$ffmpeg/ffmpeg
		[ -x "$ffmpeg" ] || die "MYRMIDON_FFMPEG: $ffmpeg is not a program: set it to ffmpeg or to the folder that holds it, or unset it"
	elif have ffmpeg && have ffprobe; then
		ffmpeg=ffmpeg
	elif [ -x /opt/ffmpeg/ffmpeg ] && ! have ffmpeg; then
		ffmpeg=/opt/ffmpeg/ffmpeg
	else
		want ffmpeg "ffmpeg 5.1 or later"
		return 0
	fi
	if old_ffmpeg "$ffmpeg"; then
		die "$ffmpeg is older than 5.1: put a newer one (with libx264 and aac) first on PATH, or set MYRMIDON_FFMPEG=/path/to/ffmpeg"
	fi
}

# chromium_here looks where internal/playback's tests look.
chromium_here() {
	for name in chromium chromium-browser google-chrome google-chrome-stable; do
		! have "$name" || return 0
	done
	[ -x "/Applications/Chromium.app/Contents/MacOS/Chromium" ] ||
		[ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

check_chromium() {
	if [ -n "${CHROMIUM:-}" ]; then
		[ -x "$CHROMIUM" ] || die "CHROMIUM: $CHROMIUM is not a program: set it to a Chromium or Chrome, or unset it"
	elif ! chromium_here; then
		# Ubuntu has Chromium as a snap only, by the package of the other name.
		if have apt-cache && ! apt-cache show chromium >/dev/null 2>&1 && apt-cache show chromium-browser >/dev/null 2>&1; then
			want chromium-browser Chromium
		else
			want chromium Chromium
		fi
	fi
}

check_node() {
	have node || want nodejs "Node.js 18 or later"
	have npm || want npm npm
}

old_node() {
	major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
	[ "$major" -lt 18 ]
}

check_compiler() {
	have "${CC:-gcc}" || have cc || have clang || want "gcc libc6-dev" "a C compiler"
}

# check_ip asks for the program that makes network namespaces: only root can use them.
check_ip() {
	[ "$(uname)" != Linux ] || [ "$(id -u)" -ne 0 ] || have ip || want iproute2 "ip of iproute2"
}

# built reports whether the server $1 lies in .cache as tools/ pins it; if not, the tests
# build it, or another one's.
built() {
	for server in .cache/"$1"*; do
		[ ! -x "$server" ] || return 0
	done
	return 1
}

# build_server lets the test $3 of the package $2 build the server $1: it knows how.
build_server() {
	! built "$1" || return 0
	say "building $4 for the tests, once (a minute or two)"
	log=$(mktemp)
	if ! go test -count=1 -run "$3" "$2" >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		rm -f "$log"
		die "could not build $4: see above; is there a network?"
	fi
	rm -f "$log"
}

build_nats() { build_server natsserver- ./internal/testkit/natsserver '^TestAServerKeeps' "the NATS server"; }
build_s3() { build_server versitygw- ./internal/testkit/s3server '^TestAServerStops' "the S3 server versitygw"; }

# rabbit_here looks where bench/engine looks.
rabbit_here() {
	for server in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server; do
		[ ! -x "$server" ] || return 0
	done
	have rabbitmq-server
}

check_rabbit() {
	rabbit_here && have epmd || want rabbitmq-server RabbitMQ
}

# check_aws asks for the client that looks at what a clone has made.
check_aws() {
	have aws || want awscli awscli
}

# check_copiers asks for the peers of bench/clone that distributions have.
check_copiers() {
	have rclone || want rclone rclone
	check_aws
}

haproxy_here() { have haproxy || [ -x /usr/sbin/haproxy ]; }

check_haproxy() { haproxy_here || want haproxy HAProxy; }

# Debian asks this program before it starts a service (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
held=

# hold_services lets no package start its service, now or at the next boot, until
# release_services. A policy that the machine has already is left as it is.
hold_services() {
	[ ! -e "$policy" ] || return 0
	held=1
	trap release_services EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null && $sudo chmod 755 "$policy" ||
		die "could not write $policy, which keeps services from being started"
}

release_services() {
	[ -z "$held" ] || $sudo rm -f "$policy"
	held=
}

# disable_rabbit keeps the service, and Erlang's, which were just installed, from being
# started at the next boot. Where there is no systemd it has nothing to do but the links.
disable_rabbit() {
	$sudo update-rc.d rabbitmq-server disable >/dev/null 2>&1 || say "could not disable the service rabbitmq-server"
	! have systemctl || $sudo systemctl --quiet disable epmd.service epmd.socket >/dev/null 2>&1 || say "could not disable the service epmd"
}

# disable_haproxy does the same for HAProxy's.
disable_haproxy() {
	$sudo update-rc.d haproxy disable >/dev/null 2>&1 || say "could not disable the service haproxy"
}

# elsewhere says what to install where there is no apt-get.
elsewhere() {
	say "missing: $names"
	say "this machine has no apt-get, so install them by hand:"
	brew=
	dnf=
	apk=
	pacman=
	for p in $packages; do
		case $p in
		ffmpeg) brew="$brew ffmpeg" dnf="$dnf ffmpeg" apk="$apk ffmpeg" pacman="$pacman ffmpeg" ;;
		chromium | chromium-browser) cask=chromium dnf="$dnf chromium" apk="$apk chromium" pacman="$pacman chromium" ;;
		iproute2) dnf="$dnf iproute" apk="$apk iproute2" pacman="$pacman iproute2" ;;
		nodejs) brew="$brew node" dnf="$dnf nodejs" apk="$apk nodejs" pacman="$pacman nodejs" ;;
		npm) dnf="$dnf nodejs-npm" apk="$apk npm" pacman="$pacman npm" ;;
		gcc) dnf="$dnf gcc" apk="$apk gcc" pacman="$pacman gcc" ;;
		rclone) brew="$brew rclone" dnf="$dnf rclone" apk="$apk rclone" pacman="$pacman rclone" ;;
		awscli) brew="$brew awscli" dnf="$dnf awscli2" apk="$apk aws-cli" pacman="$pacman aws-cli" ;;
		haproxy) brew="$brew haproxy" dnf="$dnf haproxy" apk="$apk haproxy" pacman="$pacman haproxy" ;;
		rabbitmq-server) brew="$brew rabbitmq" dnf="$dnf rabbitmq-server" apk="$apk rabbitmq-server" pacman="$pacman rabbitmq" ;;
		libc6-dev) dnf="$dnf glibc-devel" apk="$apk musl-dev" ;;
		esac
	done
	case "$packages" in *npm*) case "$brew" in *node*) ;; *) brew="$brew node" ;; esac ;; esac
	mac=
	[ -z "$brew" ] || mac="brew install$brew"
	[ -z "${cask:-}" ] || mac="${mac:+$mac && }brew install --cask $cask"
	case "$packages" in *gcc*) mac="${mac:+$mac && }xcode-select --install" ;; esac
	cat >&2 <<-EOF
		  macOS      $mac
		  Fedora     sudo dnf install$dnf$(case "$dnf" in *ffmpeg*) printf '   (ffmpeg with libx264 is in RPM Fusion)' ;; esac)
		  Alpine     apk add$apk
		  Arch       sudo pacman -S$pacman
	EOF
	case "$packages" in *ffmpeg*) say "or set MYRMIDON_FFMPEG=/path/to/ffmpeg to a build of 5.1 or later with libx264 and aac" ;; esac
	case "$packages" in *chromium*) say "or set CHROMIUM=/path/to/chromium (or Google Chrome) to one that plays H.264 and AAC" ;; esac
	exit 1
}

# apt runs apt-get quietly, and shows what it said if it fails.
apt() {
	log=$(mktemp)
	# sudo drops most variables, so DEBIAN_FRONTEND is set behind it.
	if $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -qq -y "$@" >"$log" 2>&1 </dev/null; then
		rm -f "$log"
		return 0
	fi
	tail -n 15 "$log" >&2
	rm -f "$log"
	return 1
}

install() {
	[ -n "$packages" ] || return 0
	have apt-get || elsewhere
	packages=${packages# }
	sudo=
	if [ "$(id -u)" -ne 0 ]; then
		byhand="as root: apt-get update && apt-get install -y --no-install-recommends $packages"
		have sudo || die "missing: $names. You are not root and there is no sudo, so run $byhand"
		sudo=sudo
		if ! sudo -n true 2>/dev/null; then
			if ! [ -t 0 ] || ! [ -t 2 ]; then
				die "missing: $names. sudo asks for a password and there is no terminal, so run $byhand"
			fi
			say "sudo may ask for your password, to install $names"
			sudo -v || die "sudo refused, so run $byhand"
		fi
	fi
	say "missing: $names"
	say "apt-get update"
	# One broken source among several fails the update, and need not fail the install.
	apt update || say "apt-get update failed: see above; trying with the lists that are there"
	say "apt-get install --no-install-recommends $packages (this may take minutes)"
	case "$packages" in *rabbitmq-server* | *haproxy*) hold_services ;; esac
	# shellcheck disable=SC2086 # one word a package
	apt install --no-install-recommends $packages ||
		die "apt-get could not install $packages: see above; is there a network?"
	case "$packages" in *rabbitmq-server*) disable_rabbit ;; esac
	case "$packages" in *haproxy*) disable_haproxy ;; esac
	release_services
	say "installed $names"
	# What has just been installed may be an old release's.
	case "$packages" in
	*ffmpeg*)
		packages=
		check_ffmpeg
		[ -z "$packages" ] || die "ffmpeg is still missing, though apt-get installed it"
		;;
	esac
}

# install_npm installs the packages of a folder (for the playback tests hls.js and
# playwright-core, for those of Kinesis kinesalite), as its package-lock.json pins them,
# unless that very lock is what is installed.
install_npm() {
	folder=$1
	lock=$folder/package-lock.json
	done=$folder/node_modules/.installed-lock
	! cmp -s "$lock" "$done" || return 0
	say "npm ci in $folder: $2"
	log=$(mktemp)
	if ! (cd "$folder" && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error) >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		rm -f "$log"
		die "npm could not install the packages of $folder: see above; is there a network?"
	fi
	rm -f "$log"
	cp "$lock" "$done"
}

case "${1:-}" in
runtime | bench)
	check_go
	check_ffmpeg
	install
	;;
bench-engine)
	check_go
	check_rabbit
	install
	;;
bench-clone)
	check_go
	check_copiers
	install
	;;
bench-haproxy)
	check_go
	check_haproxy
	install
	;;
bench-logs)
	check_go
	;;
torture)
	check_go
	check_ip
	install
	build_nats
	;;
test)
	check_go
	check_ffmpeg
	check_chromium
	check_node
	check_haproxy
	check_ip
	check_aws
	install
	! old_node || die "Node.js $(node --version) is older than 18: install a newer one, first on PATH"
	install_npm internal/playback "hls.js and playwright-core"
	install_npm internal/testkit/kinesalite kinesalite
	build_nats
	build_s3
	;;
check)
	check_go
	check_ffmpeg
	check_compiler
	check_node
	check_haproxy
	check_ip
	check_aws
	install
	! old_node || die "Node.js $(node --version) is older than 18: install a newer one, first on PATH"
	install_npm internal/testkit/kinesalite kinesalite
	build_nats
	build_s3
	;;
*)
	printf 'usage: scripts/setup.sh runtime|test|bench|bench-engine|bench-clone|bench-haproxy|bench-logs|torture|check\n' >&2
	exit 2
	;;
esac
