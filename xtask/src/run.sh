#!/usr/bin/env bash
# Tests and measures the kernels on this machine's GPU. Needs the NVIDIA driver; uses compute-sanitizer, and Python
# with PyTorch for the peers, where they are there.
#
#   ./run.sh OUT_DIR [arguments for `evenkeel bench`]
#
# OUT_DIR gets log.txt, summary.json (each step with its exit status and seconds), bench.json and bench.svg. The exit
# status is 0 if every step that ran succeeded. EVENKEEL_SKIP="sanitizer bench" leaves steps out.
set -uo pipefail

if [ $# -lt 1 ]; then
  echo "usage: $0 OUT_DIR [arguments for evenkeel bench]" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here" || exit 2

# The programs look for golden data and peers below this folder instead of below the repository they were built in.
export EVENKEEL_ROOT="$here"
export EVENKEEL_TEST_DEVICE=cuda

exec > >(tee "$out/log.txt") 2>&1
steps=()
failed=0

step() {
  local name=$1 status started seconds
  shift
  case " ${EVENKEEL_SKIP:-} " in
    *" ${name%%-*} "* | *" $name "*)
      echo "== $name: skipped, as EVENKEEL_SKIP says"
      return
      ;;
  esac
  echo "== $name: $*"
  started=$SECONDS
  "$@"
  status=$?
  seconds=$((SECONDS - started))
  echo "== $name: exit status $status after $seconds s"
  steps+=("{\"step\": \"$name\", \"status\": $status, \"seconds\": $seconds}")
  [ "$status" -eq 0 ] || failed=1
}

date -u +"%Y-%m-%dT%H:%M:%SZ"
uname -srm
if command -v nvidia-smi >/dev/null; then
  nvidia-smi
fi

step info bin/evenkeel info
for test in unit suite; do
  if [ -x "bin/$test" ]; then
    step "test-$test" "bin/$test"
  fi
done

sanitizer=${COMPUTE_SANITIZER:-}
for candidate in compute-sanitizer /usr/local/cuda/bin/compute-sanitizer; do
  if [ -z "$sanitizer" ] && command -v "$candidate" >/dev/null; then
    sanitizer=$candidate
  fi
done
if [ -n "$sanitizer" ]; then
  # One test at a time: the tools multiply the time and memory of each.
  for tool in memcheck racecheck initcheck synccheck; do
    step "sanitizer-$tool" "$sanitizer" --tool "$tool" --error-exitcode 9 bin/suite --test-threads 1 ${EVENKEEL_SANITIZER_TESTS:-}
  done
else
  echo "== sanitizer: compute-sanitizer is not here; COMPUTE_SANITIZER may name it"
fi

step bench bin/evenkeel bench --device cuda --json "$out/bench.json" --plot "$out/bench.svg" "$@"

{
  echo "{\"failed\": $failed, \"steps\": ["
  for index in "${!steps[@]}"; do
    [ "$index" -eq 0 ] || echo ","
    echo "  ${steps[$index]}"
  done
  echo "]}"
} > "$out/summary.json"
echo "== done: failed=$failed, results in $out"
exit "$failed"
