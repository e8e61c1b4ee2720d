#!/usr/bin/env bash
# Checks and times a GPU within nine minutes, the most wanted first: docs/gpu-kit.md, which is the
# README.md beside this file. Every part has a limit of its own; one that fails, hangs or is not
# there does not stop the next. Results go to $OUT as they come, summary.txt after every part.
set -u

kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$PWD/basedxl-gpu-results}
python=${PYTHON:-}
# Numbers have a point, and awk reads them so.
export LC_ALL=C
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
PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
# Where containers have the driver, behind what the loader is told already.
for folder in /usr/local/nvidia/lib64 /usr/lib/wsl/lib; do
  [ -d "$folder" ] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
for folder in /opt/nvidia/nsight-compute/*/; do [ -x "${folder}ncu" ] && PATH=$PATH:$folder; done
parts=
longest=4
# Process that writes clocks.
watcher=
# Of the part that ran last.
status_last=0

main() {
  mkdir -p "$out" || exit 1
  # Some ways to unpack an archive forget it.
  [ -x "$program" ] || chmod +x "$program"
  rm -f "$out"/{summary,machine,verify,images,operations,torch,sanitizer,ncu}.txt
  trap 'end_watch; summarize; exit 143' TERM INT
  find_libraries
  # What cuDNN and the driver compile, and which algorithms were fastest, is this run's own.
  work=$(mktemp -d)
  export BASEDXL_CACHE_DIR=$work/cache CUDA_CACHE_PATH=$work/cuda PYTHONUNBUFFERED=1
  export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton

  part machine 30 machine.txt bash "$kit/run.sh" --machine "$python"
  watch_clocks
  if [ -n "$emulator" ]; then
    small_parts
  else
    all_parts
  fi
  end_watch
  rm -rf "$work"
  summarize
  cat "$out/summary.txt"
  ! grep -q '^\(FAILED\|timed out\)' "$out/summary.txt"
}

# Clocks, power and memory beside the parts: whether a figure is of a GPU at its speed. A driver that
# is asked all the time also stays loaded between two processes.
watch_clocks() {
  command -v nvidia-smi >/dev/null || return
  local asked=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used
  timeout --kill-after=2 "$seconds_all" nvidia-smi --query-gpu=$asked --format=csv -lms 2000 \
    >>"$out/machine.txt" 2>&1 </dev/null &
  watcher=$!
}

end_watch() {
  [ -n "$watcher" ] && kill "$watcher" 2>/dev/null
}

# The first ones read the libraries from a cold disk.
all_parts() {
  verify "verify --quick" 60 --quick
  images "UNet step" 100 step
  images "recorded images" 30 recorded
  operations 80 "$kit/operations.jsonl"
  verify "verify" 80
  images "second start" 25 again
  local name
  for name in dependent-launches no-graphs own-attention int8 832x1216 2048x2048; do
    images "$name" 30 "$name"
  done
  # What torch.compile needs is what counts there; the next parts need the rest.
  local limit=$((seconds_all - SECONDS - 85))
  [ "$limit" -lt 60 ] && limit=60
  [ "$limit" -gt 220 ] && limit=220
  torch "$limit" "$kit/operations.jsonl" cuda
  sanitizer memcheck 35 bench "$kit/operations-small.jsonl" 20
  sanitizer racecheck 35 verify --quick --only attention
  own_kernels 35 "$kit/operations.jsonl"
}

small_parts() {
  verify "verify --quick" 90 --quick --device cuda-emulated --emulator "$emulator"
  images "small images" 90 small
  operations 60 "$kit/operations-small.jsonl"
  torch 60 "$kit/operations-small.jsonl" cpu
  sanitizer memcheck 30 bench "$kit/operations-small.jsonl" 20 "$emulator"
  sanitizer racecheck 30 verify --quick --only attention \
    --device cuda-emulated --emulator "$emulator"
  own_kernels 30 "$kit/operations-small.jsonl"
}

images() {
  part "$1" "$2" images.txt "$program" model "$kit/runs.json" "$3" ${emulator:+"$emulator"}
}

# NAME LIMIT FLAG...
verify() {
  local name=$1 limit=$2
  shift 2
  goes_on "$name" "$limit" verify.txt '^begins ' verify_after "$@"
}

verify_after() {
  local skip=$1
  shift 2
  set -- "$program" verify --announce --skip "$skip" "$@"
  command=("$@")
}

# LIMIT LIST
operations() {
  goes_on operations "$1" operations.txt '^\(UNet\|VAE\|text\) ' operations_after "$2"
}

operations_after() {
  local skip=$1 seconds=$(($2 - 15))
  [ "$seconds" -lt 1 ] && seconds=1
  command=("$program" bench "$3" "$seconds" "$emulator" "$skip")
}

# A part whose process some errors end, or leave without the GPU: an illegal address stays with a
# process. NAME LIMIT FILE BEGUN COMMAND ARG...: lines like BEGUN tell what has begun, and the
# function COMMAND makes a command of how many of them to leave out, the limit and the arguments.
goes_on() {
  local name=$1 limit=$2 file=$3 begun=$4 make=$5 skip=0 before count title=$1
  shift 5
  local end=$((SECONDS + limit)) command=()
  while true; do
    before=$(lines_of "$begun" "$out/$file")
    "$make" "$skip" "$(limited "$limit")" "$@"
    part "$title" "$limit" "$file" "${command[@]}"
    count=$(($(lines_of "$begun" "$out/$file") - before))
    skip=$((skip + count)) limit=$((end - SECONDS)) title="$name, after the first $skip"
    case $status_last in
      0 | 2 | 124 | 137 | 255) return ;;
      1) tail -n 4 "$out/$file" | grep -q 'not run\.$\|left out: no GPU$' || return ;;
    esac
    [ "$count" -eq 0 ] || [ "$limit" -lt 5 ] && return
  done
}

lines_of() {
  if [ -f "$2" ]; then grep -c "$1" "$2"; else echo 0; fi
}

# What is left of a LIMIT.
limited() {
  local limit=$1 left=$((seconds_all - SECONDS))
  [ "$limit" -gt "$seconds_part" ] && limit=$seconds_part
  [ "$limit" -gt "$left" ] && limit=$left
  echo "$limit"
}

torch() {
  local name="PyTorch"
  if ! command -v "${python:-python3}" >/dev/null; then
    note "not run" "$name" 0 "there is no ${python:-python3}"
  else
    part "$name" "$1" torch.txt "$python" "$kit/gpu_kit_peer.py" "$2" --device "$3" \
      --seconds "$(($(limited "$1") - 10))"
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
  local name=$1 limit file=$out/$3 status
  limit=$(limited "$2")
  shift 3
  status_last=124
  if [ "$limit" -lt "$seconds_min" ]; then
    note "not run" "$name" 0 "no time was left"
    return
  fi
  local start=$SECONDS
  printf '== %s, at most %s s\n' "$name" "$limit" >>"$file"
  timeout --kill-after=2 "$limit" "$@" >>"$file" 2>&1 </dev/null &
  await $! $((limit + 6))
  status=$?
  status_last=$status
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

# PYTHON; else a Python with torch, of the PATH or where images have one; else any.
find_python() {
  local each any=
  [ -n "$python" ] && return
  for each in python3 python /opt/*/bin/python3 /opt/*/.venv/bin/python3 \
    /venv/bin/python3 /workspace/*/bin/python3 "${HOME:-/root}"/*/bin/python3; do
    command -v "$each" >/dev/null || continue
    [ -z "$any" ] && any=$each
    timeout 10 "$each" -c \
      'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' \
      >/dev/null 2>&1 || continue
    any=$each
    break
  done
  python=$any
}

# Where Python has NVIDIA's libraries, the native program looks for them there.
find_libraries() {
  find_python
  command -v "${python:-python3}" >/dev/null || return
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
  for tool in nvidia-smi nvcc compute-sanitizer ncu gcc ${python:+"$python"}; do
    printf '%s: %s\n' "$tool" "$(command -v "$tool" || echo none)"
  done
  command -v nvidia-smi >/dev/null && timeout 10 nvidia-smi
  command -v nvcc >/dev/null && nvcc --version | tail -n 2
  local folder
  PYTHONPATH=${PYTHONPATH:-/nowhere}
  for folder in "${PYTHONPATH%%:*}"/nvidia/*/lib; do
    [ -d "$folder" ] && (cd "$folder" && printf '%s:' "$folder" && printf ' %s' * && echo)
  done
  command -v "${python:-python3}" >/dev/null && timeout 15 "$python" -c \
    'import torch; print("torch", torch.__version__, torch.version.cuda, torch.cuda.is_available())'
  return 0
}

if [ "${1:-}" = --machine ]; then
  python=${2:-}
  machine
else
  main
fi
