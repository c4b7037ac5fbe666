# The Debian packages that building needs; sourced by the other scripts. Installs only what is missing.
packages="g++ cmake ninja-build git ccache pkg-config libdnnl-dev libavcodec-dev libavformat-dev libavutil-dev libswscale-dev
nlohmann-json3-dev libzip-dev libcli11-dev libyaml-cpp-dev libtomlplusplus-dev libgtest-dev
clang-format python3 tar"

install_packages() {
    missing=""
    for package in $packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    echo "installing:$missing"
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
