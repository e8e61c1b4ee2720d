#!/usr/bin/env bash
# Checks and times a GPU within nine minutes, the most wanted first: docs/gpu-kit.md, which is the
# README.md beside this file. Every part has a limit of its own; one that fails, hangs or is not
# there does not stop the next. Results go to $OUT as they come, summary.txt after every part.
set -u

kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$PWD/basedxl-gpu-results}
python=${PYTHON:-python3}
# Of everything, and of one part at most.
seconds_all=${BASEDXL_KIT_SECONDS:-530}
seconds_part=${BASEDXL_KIT_PART_SECONDS:-600}
# A library in the place of NVIDIA's: then all sizes are small.
emulator=${BASEDXL_KIT_EMULATOR:-}
file_bytes_max=15000000
# Before a part is not worth its start.
seconds_min=3

program=$kit/basedxl-gpu
# Where toolkits are that no one has put there.
PATH=$PATH:/usr/local/cuda/bin
for folder in /opt/nvidia/nsight-compute/*/; do [ -x "${folder}ncu" ] && PATH=$PATH:$folder; done
parts=
longest=4

main() {
  mkdir -p "$out" || exit 1
  rm -f "$out"/{summary,machine,verify,images,operations,torch,sanitizer,ncu}.txt
  trap 'summarize; exit 143' TERM INT
  find_libraries
  # What cuDNN and the driver compile, and which algorithms were fastest, is this run's own.
  work=$(mktemp -d)
  export BASEDXL_CACHE_DIR=$work/cache CUDA_CACHE_PATH=$work/cuda PYTHONUNBUFFERED=1

  part machine 20 machine.txt bash "$kit/run.sh" --machine
  if [ -n "$emulator" ]; then
    small_parts
  else
    all_parts
  fi
  rm -rf "$work"
  summarize
  cat "$out/summary.txt"
  ! grep -q '^\(FAILED\|timed out\)' "$out/summary.txt"
}

all_parts() {
  part "verify --quick" 40 verify.txt "$program" verify --quick
  images "UNet step" 70 step
  images "recorded images" 25 recorded
  part "verify" 80 verify.txt "$program" verify
  images "second start" 20 again
  part "operations" 80 operations.txt "$program" bench "$kit/operations.jsonl" 65
  images "other sizes and settings" 70 variants
  torch 110 "$kit/operations.jsonl" cuda
  sanitizer memcheck 35 bench "$kit/operations-small.jsonl" 20
  sanitizer racecheck 35 verify --quick --only attention
  own_kernels 35 "$kit/operations.jsonl"
}

small_parts() {
  part "verify --quick" 90 verify.txt \
    "$program" verify --quick --device cuda-emulated --emulator "$emulator"
  images "small images" 90 small
  part "operations" 60 operations.txt \
    "$program" bench "$kit/operations-small.jsonl" 50 "$emulator"
  torch 60 "$kit/operations-small.jsonl" cpu
  sanitizer memcheck 30 bench "$kit/operations-small.jsonl" 20 "$emulator"
  sanitizer racecheck 30 verify --quick --only attention \
    --device cuda-emulated --emulator "$emulator"
  own_kernels 30 "$kit/operations-small.jsonl"
}

images() {
  part "$1" "$2" images.txt "$program" model "$kit/runs.json" "$3" ${emulator:+"$emulator"}
}

torch() {
  local name="PyTorch"
  if ! command -v "$python" >/dev/null; then
    note "not run" "$name" 0 "there is no $python"
  else
    part "$name" "$1" torch.txt "$python" "$kit/gpu_kit_peer.py" "$2" --device "$3" \
      --seconds "$(($1 - 20))"
  fi
}

# TOOL LIMIT and what the program is asked for.
sanitizer() {
  local tool=$1 limit=$2
  shift 2
  if ! command -v compute-sanitizer >/dev/null; then
    note "not run" "compute-sanitizer $tool" 0 "there is no compute-sanitizer"
  else
    part "compute-sanitizer $tool" "$limit" sanitizer.txt \
      compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" "$@"
  fi
}

# The first launch of each own kernel; the clocks are left as they are.
own_kernels() {
  local kernels='::regex:attention|group_norm|layer_norm|geglu|conv_direct|scale_repeat:1'
  if ! command -v ncu >/dev/null; then
    note "not run" "ncu" 0 "there is no ncu"
  else
    part "ncu" "$1" ncu.txt ncu --clock-control none --kernel-id "$kernels" --section SpeedOfLight \
      --section LaunchStats --section Occupancy "$program" bench "$2" "$(($1 - 15))" \
      ${emulator:+"$emulator"}
  fi
}

# Runs a part: NAME LIMIT FILE COMMAND... Its output is added to the file as it comes.
part() {
  local name=$1 limit=$2 file=$out/$3 left=$((seconds_all - SECONDS)) status
  shift 3
  [ "$limit" -gt "$seconds_part" ] && limit=$seconds_part
  [ "$limit" -gt "$left" ] && limit=$left
  if [ "$limit" -lt "$seconds_min" ]; then
    note "not run" "$name" 0 "no time was left"
    return
  fi
  local start=$SECONDS
  printf '== %s, at most %s s\n' "$name" "$limit" >>"$file"
  timeout --kill-after=2 "$limit" "$@" >>"$file" 2>&1 </dev/null &
  await $! $((limit + 6))
  status=$?
  printf '\n' >>"$file"
  if [ "$(wc -c <"$file")" -gt "$file_bytes_max" ]; then truncate -s "$file_bytes_max" "$file"; fi
  local took=$((SECONDS - start))
  case $status in
    0) note passed "$name" "$took" "" ;;
    124 | 137) note "timed out" "$name" "$took" "see ${file##*/}" ;;
    255) note "timed out" "$name" "$took" "and could not be ended: see ${file##*/}" ;;
    *) note FAILED "$name" "$took" "exit code $status: see ${file##*/}" ;;
  esac
}

# The exit code of process $1, or 255 where it is still there after $2 seconds: a driver that does
# not answer keeps a killed process.
await() {
  local end=$((SECONDS + $2))
  while kill -0 "$1" 2>/dev/null; do
    [ "$SECONDS" -ge "$end" ] && return 255
    sleep 0.1
  done
  wait "$1" 2>/dev/null
}

# Adds a line on a part: STATE NAME SECONDS REMARK.
note() {
  [ "${#2}" -gt "$longest" ] && longest=${#2}
  parts+="$1"$'\t'"$2"$'\t'"$3"$'\t'"$4"$'\n'
  summarize
  printf '%s: %s (%s s) %s\n' "$2" "$1" "$3" "$4"
}

summarize() {
  {
    printf 'BasedXL on a GPU, after %s s\n\n' "$SECONDS"
    [ -n "$emulator" ] && printf 'EMULATED ON THE CPU: all times below are meaningless.\n\n'
    printf '%s' "$parts" | awk -F '\t' -v width="$longest" \
      '{ printf "%-10s %-" width "s %4d s  %s\n", $1, $2, $3, $4 }'
    printf '\n'
    figures
  } >"$out/summary.txt.new"
  mv "$out/summary.txt.new" "$out/summary.txt"
}

# Every figure of the parts, with its bars, and PyTorch's beside ours of the same name; a deviation
# in per cent may have either sign.
figures() {
  local files=() file
  for file in images operations torch; do
    [ -f "$out/$file.txt" ] && files+=("$out/$file.txt")
  done
  [ "${#files[@]}" -eq 0 ] && return
  awk -F '\t' '
    FILENAME == ARGV[1] { bars[$1] = bars[$1] $2 "\t" $3 "\n"; next }
    $1 != "figure" { next }
    {
      line = sprintf("%-58s %10.4g %-8s", $2, $3, $4)
      value[$2] = $3
      name = $2
      if (sub(/^PyTorch[^,]*, /, "", name) && value[name] > 0) {
        line = line sprintf(" %.2f x ours", $3 / value[name])
      }
      count = split(bars[$2], each, "\n")
      size = $3 < 0 ? -$3 : $3
      for (i = 1; i < count; i++) {
        split(each[i], bar, "\t")
        line = line sprintf(" %s %s: %s", bar[2], bar[1], size <= bar[1] ? "met" : "MISSED")
      }
      sub(/ +$/, "", line)
      print line
    }' "$kit/bars.tsv" "${files[@]}"
}

# Where Python has NVIDIA's libraries, the native program looks for them there.
find_libraries() {
  command -v "$python" >/dev/null || return
  local found
  found=$(timeout 20 "$python" - <<'END'
import os, sys
try:
    import nvidia
    packages = os.path.dirname(list(nvidia.__path__)[0])
except ImportError:
    packages = ""
print(sys.prefix, packages, sep="\t")
END
  ) || return
  export VIRTUAL_ENV=${VIRTUAL_ENV:-${found%%$'\t'*}}
  local packages=${found#*$'\t'}
  [ -n "$packages" ] && export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
}

# The first part: what there is.
machine() {
  echo "date: $(date -u)"
  uname -a
  printf 'PATH: %s\nVIRTUAL_ENV: %s\nPYTHONPATH: %s\n' \
    "$PATH" "${VIRTUAL_ENV:-}" "${PYTHONPATH:-}"
  local tool
  for tool in nvidia-smi nvcc compute-sanitizer ncu "$python"; do
    printf '%s: %s\n' "$tool" "$(command -v "$tool" || echo none)"
  done
  command -v nvidia-smi >/dev/null && nvidia-smi
  command -v nvcc >/dev/null && nvcc --version | tail -n 2
  local folder
  PYTHONPATH=${PYTHONPATH:-/nowhere}
  for folder in "${PYTHONPATH%%:*}"/nvidia/*/lib; do
    [ -d "$folder" ] && (cd "$folder" && printf '%s:' "$folder" && printf ' %s' * && echo)
  done
  command -v "$python" >/dev/null && timeout 15 "$python" -c \
    'import torch; print("torch", torch.__version__, torch.version.cuda, torch.cuda.is_available())'
  return 0
}

if [ "${1:-}" = --machine ]; then machine; else main; fi
