"""How the five numbers of the corrected Chinchilla fit vary together: the published points, resampled and fitted again.

    python benchmarks/scaling_spread.py --points svg_extracted_data.csv [--draws 400]

Writes benchmarks/results/scaling_spread.json: standard errors beside those that Besiroglu 2024 (arXiv 2404.10102) prints, and the
covariance of (E, ln A, ln B, alpha, beta) that `plan.scaling.BESIROGLU` draws from. The five points of the fewest tokens a
parameter are left out, as there.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from genwright.plan.scaling import BESIROGLU, resampled
from machine import write_result

OUT = Path(__file__).parent / "results" / "scaling_spread.json"
LEFT_OUT = 5


def main() -> None:
    """Resample, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=400)
    arguments = parser.parse_args()
    with arguments.points.open() as stream:
        rows = [
            (float(row["Model Size"]), float(row["Training FLOP"]), float(row["loss"]))
            for row in csv.DictReader(stream)
        ]
    points = sorted(((n, c / (6 * n), loss) for n, c, loss in rows), key=lambda one: one[1] / one[0])[LEFT_OUT:]
    drawn = np.asarray(resampled(points, arguments.draws))
    logs = np.column_stack([drawn[:, 0], np.log(drawn[:, 1:3]), drawn[:, 3:]])
    result = {
        "points": len(points), "draws": len(drawn), "errors": np.std(drawn, axis=0).tolist(), "printed_errors": BESIROGLU.errors,
        "covariance": np.cov(logs.T).tolist(), "correlation": np.corrcoef(logs.T).tolist(),
    }  # fmt: skip
    write_result(OUT, **result)
    print(json.dumps({name: result[name] for name in ("errors", "correlation", "covariance")}))


if __name__ == "__main__":
    main()
