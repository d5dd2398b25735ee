#!/bin/sh
# Build the virtual environment in $1: Python packages at the pins of constraints.txt,
# the message package compiled for this interpreter, ndp_ros itself as an editable install.
# System packages are installed only where this may be done without asking (root and apt);
# elsewhere one line says what to install.
set -eu

venv=$1
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

# $1: Debian packages. $2: what they are for.
system() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $1 ($2)"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $1; } >/dev/null 2>&1
    else
        return 1
    fi
}

python=${PYTHON:-}
for candidate in $python python3.11 python3 python3.12 python3.10 python3.13; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] && "$python" -c '' 2>/dev/null || die "needs Python 3.11 to 3.13; none was found. Set PYTHON=/path/to/python3.11"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

"$python" -c 'import ensurepip, venv' 2>/dev/null || system "python$version-venv" "virtual environments" ||
    die "Python $version has no venv module: sudo apt-get install python$version-venv"
[ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
    system "python$version-dev" "headers, to compile the messages" ||
    die "Python $version has no headers: sudo apt-get install python$version-dev"
command -v c++ >/dev/null || command -v g++ >/dev/null || system g++ "to compile the messages" ||
    die "no C++ compiler: sudo apt-get install g++"
ldconfig -p 2>/dev/null | grep -q libOSMesa || system libosmesa6 "pictures without a screen" ||
    say "no libOSMesa: simulations run, without video. For video: sudo apt-get install libosmesa6"

say "Python $version; the environment takes 2.2 GB, or 6 GB where torch comes with CUDA, and some minutes"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
quiet="--quiet --disable-pip-version-check"
log=$venv/setup.log
step() {
    say "$1"
    shift
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2; die "failed; the whole output is in $log"; }
}
# torch is named first and alone: its CPU build satisfies what other packages ask for.
case ${TORCH:-} in
    "") wanted="-c constraints.txt torch" ;;
    *) wanted=$TORCH ;;
esac
step "1/4 torch" "$venv/bin/pip" install $quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $wanted
step "2/4 ndp_ros and its packages" "$venv/bin/pip" install $quiet -c constraints.txt -e '.[all]'
step "3/4 the messages (compiles)" "$venv/bin/pip" install $quiet ./interfaces
step "4/4 check" "$venv/bin/python" -c 'import mujoco, pinocchio, rclpy, torch; from ndp_interfaces.msg import DmpParameters'
say "ready"
