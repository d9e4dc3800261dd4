#!/bin/bash
# {count} scans in {jobs} jobs. Scans that are done are passed over: submit the same script again to continue.
#SBATCH --job-name=seran
#SBATCH --array=1-{jobs}
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --output=seran-%A_%a.log
set -euo pipefail
exec {command} --threads "$SLURM_CPUS_PER_TASK" --part "$SLURM_ARRAY_TASK_ID/{jobs}"
