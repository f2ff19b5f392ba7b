"""llama.cpp's server in this process, from the wheel of xllamacpp (pip install xllamacpp): a peer of serving.py.

    python benchmarks/llama_server.py MODEL.gguf --port 8001 --streams 4 --context 256 --threads 2

It generates for so many streams at a time (continuous batching), each with this context.
"""

from __future__ import annotations

import argparse
import signal

import xllamacpp  # pyright: ignore[reportMissingImports]  # not a dependency: only this comparison needs it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name in ("port", "streams", "context", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.port = options.port
    params.n_parallel = options.streams
    params.n_ctx = options.context * options.streams
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
