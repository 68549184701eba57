// The parts of the fault suite. Tests run them in a short form, benchmarks/faults in full; each injects its
// faults, judges what came of them and returns the count.
#pragma once

#include "tests/faults/tally.h"

namespace ptrain::faults {

/// kill -9 of a random rank at a random time, several grids in turns: the same command goes on from a whole
/// checkpoint with at most one interval lost, to the bits of the run that nothing happened to.
Tally kill_at_random_times(int kills);

/// kill -9 of the first and of the last rank at every moment of a save that has a name, so many times over:
/// the same.
Tally kill_at_commit_points(int rounds);

/// SIGSTOP of a random rank at a random time: it is found and named, nothing is left behind, the same command
/// goes on. Recovered: named rightly, exit 66.
Tally stop_at_random_times(int stops);

/// Every file of a checkpoint cut at 20 places, bits flipped, bursts of wrong bytes: all are refused, the
/// file is named, and the checkpoint before is taken.
Tally damaged_files(int flips, int bursts);

/// Writes, fsyncs, renames that fail in single saves, and writes that take half: only the save is lost, the
/// run goes on.
Tally failing_disk(int rounds);

/// The same on a disk of 8 MB that has no room until somebody makes some; needs the right to mount.
Tally full_disk();

/// The order of fsync, rename and deletion of so many saves, from strace.
Tally order_on_disk(int saves);

/// Steps, saves and resumes after SIGUSR1 in one output: memory and open files do not grow.
Tally soak(int steps, int saves, int resumes);

}  // namespace ptrain::faults
