"""Checks that BasedXL and huggingface_hub share one cache: each finds what the other fetched and
waits for the other's locks, and BasedXL goes on with Python's partial downloads.

    python tests/reference/check_hub_cache.py      # needs bun and huggingface_hub, no network

The hub is that of the tests (tests/support/hub-server.ts), on this machine.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

root = Path(__file__).resolve().parents[2]
commit = "0123456789abcdef0123456789abcdef01234567"
serve = f"""
import {{ readdirSync, readFileSync }} from "node:fs";
import {{ join }} from "node:path";
import {{ startHubServer }} from "{root}/tests/support/hub-server.ts";
import {{ random }} from "{root}/tests/support/hub-bytes.ts";
const mini = "{root}/src/assets/mini-sdxl";
const files = {{ "big.bin": random(100, 3) }};
for (const entry of readdirSync(mini, {{ recursive: true, withFileTypes: true }})) {{
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  files[path.slice(mini.length + 1)] = readFileSync(path);
}}
const server = await startHubServer();
server.repositories.set("org/mini", {{ commit: "{commit}", files }});
server.repositories.set("org/one", {{
  commit: "{commit}", files: {{ "one.safetensors": random(32_000_000, 4) }},
}});
// A word on stdin: large files stop after so many bytes; 0 is the whole file.
process.stdin.on("data", (data) => {{
  const bytes = Number(data);
  server.fault = ({{ isCdn, method }}) =>
    isCdn && method === "GET" && bytes > 0 ? {{ stallAfter: bytes }} : undefined;
  console.log(server.sentBytes);
  server.sentBytes = 0;
}});
console.log(server.endpoint);
"""


def main() -> None:
    server = subprocess.Popen(
        ["bun", "-e", serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    endpoint = server.stdout.readline().strip()
    os.environ["HF_ENDPOINT"] = endpoint
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_XET"] = "1"

    def stall(count: int) -> int:
        """Sets where large files stop; the number of bytes that were sent before."""
        server.stdin.write(f"{count}\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    try:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), stall)
    finally:
        server.kill()


def environment(cache: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_CACHE": str(cache), **more}


def basedxl(cache: Path, repository: str, **more: str) -> subprocess.Popen:
    command = ["bun", str(root / "src/main.ts"), "pull", repository]
    return subprocess.Popen(
        command,
        env=environment(cache, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pull(cache: Path, repository: str, **more: str) -> tuple[str, str]:
    child = basedxl(cache, repository, **more)
    out, err = child.communicate()
    assert child.returncode == 0, err
    return out.strip(), err


def python(cache: Path, code: str) -> subprocess.Popen:
    command = [sys.executable, "-c", f"from huggingface_hub import *\n{code}"]
    return subprocess.Popen(command, env=environment(cache), stdout=subprocess.PIPE, text=True)


def said(child: subprocess.Popen) -> str:
    out, _ = child.communicate()
    assert child.returncode == 0
    return out.strip()


def wait_for(cache: Path, pattern: str, count: int) -> Path:
    while True:
        for path in cache.glob(pattern):
            if path.exists() and path.stat().st_size >= count:
                return path
        time.sleep(0.05)


def check(folder: Path, stall) -> None:
    ours, theirs = folder / "ours", folder / "theirs"
    snapshot = f"models--org--mini/snapshots/{commit}"

    path, _ = pull(ours, "org/mini")
    assert path == str(ours / snapshot)
    local = "print(snapshot_download('org/mini', local_files_only=True))"
    assert said(python(ours, local)) == path
    names = [str(each.relative_to(path)) for each in Path(path).rglob("*") if each.is_file()]
    each = f"for name in {names!r}: print(hf_hub_download('org/mini', name, local_files_only=True))"
    assert said(python(ours, each)).split() == [f"{path}/{name}" for name in names]
    scan = "i = scan_cache_dir(); print(len(i.warnings), [r.repo_id for r in i.repos], i.repos)"
    report = said(python(ours, scan))
    assert report.startswith("0 ['org/mini']"), report
    stall(0)
    again = f"print(snapshot_download('org/mini', allow_patterns={names!r}))"
    assert said(python(ours, again)) == path
    assert stall(0) == 0
    print("ok: Python finds what BasedXL fetched, and fetches nothing of it again")

    path = said(python(theirs, "print(snapshot_download('org/mini'))"))
    assert pull(theirs, "org/mini", HF_HUB_OFFLINE="1")[0] == path
    stall(0)
    assert pull(theirs, "org/mini")[0] == path
    assert stall(0) == 0
    assert said(python(theirs, local)) == path
    print("ok: BasedXL finds what Python fetched, and fetches nothing of it again")

    cache = folder / "killed"
    stall(25_000_000)
    child = python(cache, "hf_hub_download('org/one', 'one.safetensors')")
    there = wait_for(cache, "models--org--one/blobs/*.incomplete", 1_000_000)
    child.send_signal(signal.SIGKILL)
    child.wait()
    count = there.stat().st_size
    stall(0)
    path, err = pull(cache, "org/one")
    sent = stall(0)
    assert sent == 32_000_000 - count, (sent, count)
    assert not list(cache.glob("models--org--one/blobs/*.incomplete"))
    print(f"ok: BasedXL goes on after the {count} bytes of a Python that was killed")

    cache = folder / "locked"
    stall(25_000_000)
    child = basedxl(cache, "org/one")
    wait_for(cache, "models--org--one/blobs/*.incomplete", 1_000_000)
    attempt = """
from pathlib import Path
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock
from filelock import Timeout
[lock] = Path(constants.HF_HUB_CACHE).glob('.locks/models--org--one/*.lock')
try:
    with WeakFileLock(lock, timeout=0.5): print('free')
except Timeout: print('taken')
"""
    assert said(python(cache, attempt)) == "taken"
    child.kill()
    child.wait()
    assert said(python(cache, attempt)) == "free"
    hold = attempt.replace("timeout=0.5", "timeout=5").replace(
        "print('free')", "print('held', flush=True); import time; time.sleep(3)"
    )
    stall(0)
    holder = python(cache, hold)
    assert holder.stdout.readline() == "held\n"
    start = time.monotonic()
    _, err = pull(cache, "org/one")
    assert time.monotonic() - start > 2 and "Waiting for another process" in err, err
    holder.wait()
    print("ok: each waits for the other's lock, and a killed process leaves none")


main()
