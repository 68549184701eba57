# shellcheck shell=bash
# What mpirun wants where tests start it; sourced. As root, with more ranks than cores, not spinning, not binding, in a
# container.
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# The tests start jobs of their own: what a job around them says of its ranks is not for them.
for name in $(compgen -e | grep -E '^(SLURM_|OMPI_COMM_|PMIX_|PMI_)'); do unset "$name"; done
