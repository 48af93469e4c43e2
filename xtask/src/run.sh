#!/usr/bin/env bash
# Tests and measures the kernels on this machine's GPU. Needs the NVIDIA driver; uses compute-sanitizer, and Python
# with PyTorch for the peers, where they are there.
#
#   ./run.sh OUT_DIR [arguments for `evenkeel bench`]
#
# OUT_DIR gets log.txt, summary.json (each step with its exit status and seconds), bench.json and bench.svg. The exit
# status is 0 if every step that ran succeeded.
#
#   EVENKEEL_SKIP="verify sanitizer bench"   leaves steps out
#   EVENKEEL_SANITIZER_TESTS=loss::cuda::    gives the sanitizers only the tests whose names contain this
#   COMPUTE_SANITIZER=/path                  where compute-sanitizer is, if it is not on the PATH
set -uo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

# The programs would look for golden data and peers in the repository they were built in.
export EVENKEEL_GOLDEN_DIR=$PWD/tests/golden
export EVENKEEL_PEERS_DIR=$PWD/benches/peers
export EVENKEEL_TEST_DEVICE=cuda

steps=()
failed=0

# step NAME COMMAND...: a step `sanitizer-memcheck` is left out by its own name or by `sanitizer`.
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

# The first of the candidates that is a program.
first_program() {
  local candidate
  for candidate in "$@"; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

summary() {
  local index
  echo "{\"failed\": $failed, \"steps\": ["
  for index in "${!steps[@]}"; do
    [ "$index" -eq 0 ] || echo ","
    printf '  %s' "${steps[$index]}"
  done
  printf '\n]}\n'
}

main() {
  date -u +"%Y-%m-%dT%H:%M:%SZ"
  uname -srm
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi
  fi
  step info bin/evenkeel info
  step tests bin/suite
  step verify bin/evenkeel verify --device cuda
  step bench bin/evenkeel bench --device cuda --json "$out/bench.json" --plot "$out/bench.svg" "$@"

  local sanitizer tool
  sanitizer=$(first_program "${COMPUTE_SANITIZER:-}" compute-sanitizer /usr/local/cuda/bin/compute-sanitizer)
  if [ -n "$sanitizer" ]; then
    # One test at a time: the tools multiply the time and the memory of each.
    for tool in memcheck racecheck initcheck synccheck; do
      step "sanitizer-$tool" env EVENKEEL_TEST_EFFORT=quick "$sanitizer" --tool "$tool" --error-exitcode 9 \
        bin/suite --test-threads 1 "${EVENKEEL_SANITIZER_TESTS:-cuda::}"
    done
  else
    echo "== sanitizer: compute-sanitizer is not here"
  fi

  summary > "$out/summary.json"
  echo "== done: failed=$failed, results in $out"
  return "$failed"
}

main "$@" 2>&1 | tee "$out/log.txt"
exit "${PIPESTATUS[0]}"
