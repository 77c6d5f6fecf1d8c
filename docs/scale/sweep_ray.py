"""A sweep on a Ray cluster: one task for each shard, and a merge when all are done.

    python sweep_ray.py grid.toml /shared/rows 64

The grid, its recordings, the binary and the folder for the rows must be at the same paths on every node. Ray only starts
processes here; a shard that is lost with its node is started again and goes on where its journal ends.
"""

import subprocess
import sys

import ray


@ray.remote(num_cpus=2, max_retries=3, retry_exceptions=True)
def shard(grid: str, out: str, index: int, count: int) -> int:
    command = ["laptime", "sweep", grid, "--out", out, "--shard", f"{index}/{count}"]
    subprocess.run([*command, "--threads", "2", "--quiet"], check=True)
    return index


def main() -> None:
    grid, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ray.init()
    waiting = [shard.remote(grid, out, index, count) for index in range(count)]
    while waiting:
        done, waiting = ray.wait(waiting)
        ray.get(done)
        print(f"{count - len(waiting)} of {count} shards done", file=sys.stderr)
    subprocess.run(["laptime", "merge", out], check=True)


if __name__ == "__main__":
    main()
