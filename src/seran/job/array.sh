#!/bin/bash
# {count} scans in {jobs} jobs. Scans that are done are passed over: submit the same script again to continue.
# Edit what your cluster needs; %20 behind --array lets 20 jobs run at once.
#SBATCH --job-name=seran
#SBATCH --array=1-{jobs}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time=24:00:00
##SBATCH --partition=NAME
##SBATCH --account=NAME
#SBATCH --output=seran-%A_%a.log
set -euo pipefail
# source /path/to/environment/bin/activate   # if a job does not find seran
part="${{SLURM_ARRAY_TASK_ID:?submit this with sbatch, or set it to a number from 1 to {jobs}}}/{jobs}"
exec {command} --threads "${{SLURM_CPUS_PER_TASK:-{cpus}}}" --part "$part"
