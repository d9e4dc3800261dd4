"""Table 1: the residual baseline, squeeze and excitation attention without and with residual scaling, SERAN.

Needs a set of `seran prepare` with the splits train, val and test at x2:

seran prepare DATA open
python paper/table1.py --data open --budget 12        # resumes; writes table1.json and table1.md
"""

import functools

from ablation import compare
from results import program

TITLES = {
    "edsr": "baseline, 40 residual blocks",
    "seab-norescale": "+ SEAB without residual scaling",
    "seab": "+ SEAB with residual scaling",
    "seran": "+ SERAB (SERAN)",
}

if __name__ == "__main__":
    program(functools.partial(compare, name="table1", titles=TITLES, seeds=(0, 1)))
