#!/bin/sh
# Build the virtual environment in $1: Python packages pinned by constraints.txt, the message
# package compiled for this interpreter, and ndp_ros as an editable install.
# System packages are installed only as root with apt; otherwise one line says what to install.
set -eu

# Builds run in folders of their own, where a relative path leads nowhere.
venv=$(realpath "$1")
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

say "Python $version, ROS 2 ${ROS:-kilted}; the environment takes 2.2 GB, or 6 GB where torch comes with CUDA, and some minutes"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
case ${ROS:-kilted} in
    kilted) pins=$PWD/constraints.txt ;;
    jazzy)
        pins=$venv/constraints.txt
        { grep -v '^ros[-gi]' constraints.txt; cat constraints-jazzy.txt; } >"$pins"
        # The generators of Jazzy need these as well, and the wheels do not say so.
        more="ros-ament-cmake-gmock ros-ament-cmake-gtest ros-ament-cmake-pytest ros-ament-cmake-ros
            ros-domain-coordinator ros-fastrtps-cmake-module ros-gmock-vendor ros-gtest-vendor
            ros-python-cmake-module"
        ;;
    *) die "ROS is $ROS, expected kilted or jazzy" ;;
esac
quiet="--quiet --disable-pip-version-check"
log=$venv/setup.log
step() {
    say "$1"
    shift
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2; die "failed; the whole output is in $log"; }
}
# torch comes first, so that its CPU build satisfies the requirements of other packages.
case ${TORCH:-} in
    "") wanted="-c $pins torch" ;;
    *) wanted=$TORCH ;;
esac
step "1/4 torch" "$venv/bin/pip" install $quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $wanted
step "2/4 ndp_ros and its packages" "$venv/bin/pip" install $quiet -c "$pins" -e '.[all,wheels,test,lint,docs]'
messages="./interfaces ./interfaces/wheels/tf2_msgs"
if [ "${ROS:-kilted}" = jazzy ]; then
    needs=$("$venv/bin/python" tools/build_requirements.py)
    step "3/4 the messages need a build environment" "$venv/bin/pip" install $quiet -c "$pins" $needs $more
    export CMAKE_PREFIX_PATH="$venv"
    messages="--no-build-isolation --no-deps $messages"
fi
step "3/4 the messages (compiles)" "$venv/bin/pip" install $quiet $messages
step "4/4 check" "$venv/bin/python" -c 'import mujoco, pinocchio, rclpy, torch; from ndp_interfaces.msg import DmpParameters'
say "ready"
