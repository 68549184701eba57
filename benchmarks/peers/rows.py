"""What the peers' programs share: rows of made-up ids, the same as `ptrain bench step` makes, and what a process
knows of itself. Standard library alone, so that importing it costs nothing."""
import os
import resource
import statistics
import time


def made_up_rows(count, length, vocabulary):
    """x <- (1103515245 x + 12345) mod 2^31 from x = 1; id = floor(x / 256) mod vocabulary."""
    x, rows = 1, []
    for _ in range(count):
        row = []
        for _ in range(length):
            x = (x * 1103515245 + 12345) & 0x7FFFFFFF
            row.append((x >> 8) % vocabulary)
        rows.append(row)
    return rows


def made_up_prompt(length, vocabulary):
    return [(i * 7919 + 17) % vocabulary for i in range(length)]


def process_age_s():
    """Seconds since this process was started, in hundredths."""
    with open("/proc/self/stat") as file:
        start_ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def median_and_best(seconds):
    return {"median_s": statistics.median(seconds), "best_s": min(seconds)}
