#!/bin/sh
# C unit tests of the engine under sanitizers: csrc/tests/run.sh [asan|tsan|analyze ...] (default: all three). Needs gcc; clang is used for TSan when it's there.
set -eu
cd "$(dirname "$0")/.."
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
SOURCES=$(ls ./*.c | grep -v -e pytypes -e _engine)
FLAGS="-std=gnu11 -g -Wall -Wextra -Werror -I."

build_and_run() { # kind compiler flags
    kind=$1 compiler=$2 flags=$3
    mkdir -p "$OUT/$kind"
    echo "== $kind ($compiler)"
    for source in $SOURCES; do
        # shellcheck disable=SC2086
        $compiler $FLAGS $flags -c "$source" -o "$OUT/$kind/$(basename "$source" .c).o"
    done
    for test in tests/test_*.c; do
        name=$(basename "$test" .c)
        echo " $name"
        # shellcheck disable=SC2086
        $compiler $FLAGS $flags "$test" "$OUT/$kind"/*.o -o "$OUT/$name.$kind" -lpthread -lrt
        timeout 120 "$OUT/$name.$kind"
    done
}

for kind in ${*:-analyze asan tsan}; do
    case $kind in
    asan) build_and_run asan gcc "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all" ;;
    tsan) build_and_run tsan "$(command -v clang || echo gcc)" "-O1 -fsanitize=thread -Wno-error" ;;
    analyze)
        echo "== analyze"
        for source in $SOURCES; do
            # shellcheck disable=SC2086
            gcc $FLAGS -O2 -fanalyzer -c "$source" -o /dev/null
        done
        ;;
    *)
        echo "unknown kind: $kind" >&2
        exit 2
        ;;
    esac
done
