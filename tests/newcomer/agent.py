"""An agent as a newcomer writes it: it calculates, fetches a page, and runs two programs. `tests/tests/newcomer.rs` finds the policy for it.

`agent.py URL` does all of it inside guarded actions; `agent.py URL outside` fetches the page without one.
"""

import subprocess
import sys

import numpy
import requests
from agent_sentinel import guarded_action


@guarded_action(name="fetch_page", cost_usd=0.01, tags=["web"])
def fetch_page(url: str) -> str:
    return requests.get(url, timeout=10).text


@guarded_action(name="ask_host")
def ask_host() -> str:
    return output_of("/usr/bin/uname", "-s")


@guarded_action(name="run_snippet")
def run_snippet() -> str:
    return output_of(sys.executable, "-c", "print(6 * 7)")


def output_of(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.strip()


def main() -> None:
    product = numpy.array([[1, 2], [3, 4]]) @ numpy.array([[5, 6], [7, 8]])
    print("product", product.tolist(), flush=True)
    if sys.argv[2:] == ["outside"]:
        print("page", requests.get(sys.argv[1], timeout=10).text.strip())
        return
    print("page", fetch_page(sys.argv[1]).strip(), flush=True)
    print("host", ask_host(), flush=True)
    print("snippet", run_snippet(), flush=True)


main()
