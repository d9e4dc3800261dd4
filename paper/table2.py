"""Table 2: one, two or three attention blocks, after residual blocks 1 (low), 20 (mid) and 40 (high).

Needs a set of `seran prepare` with the splits train, val and test at x2:

seran prepare DATA open
python paper/table2.py --data open --budget 12        # resumes; writes table2.json and table2.md
"""

import functools

from ablation import compare
from results import program

TITLES = {
    "seran-at-1": "low",
    "seran-at-20": "mid",
    "seran": "high (SERAN)",
    "seran-at-1-20": "low + mid",
    "seran-at-1-40": "low + high",
    "seran-at-20-40": "mid + high",
    "seran-at-1-20-40": "low + mid + high",
}

if __name__ == "__main__":
    program(functools.partial(compare, name="table2", titles=TITLES, seeds=(0,)))
