"""How punctual the streamer is on this machine: ``ndp bench stream`` without the command line.

python benchmarks/bench_stream.py [--rates 1000 5000] [--seconds 20] [--hardware mock] [--json]
"""

import argparse
import sys

from ndp_ros.streaming import bench

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    bench.configure(parser)
    sys.exit(bench.main(parser.parse_args()))
