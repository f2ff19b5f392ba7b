// Work that is repeated while the page is seen.

export const LONGEST_WAIT = 15_000;

/** How long to wait after a number of failures in a row, in milliseconds. */
export function waitAfter(failures, interval) {
  return failures ? Math.min(LONGEST_WAIT, 1000 * 2 ** (failures - 1)) : interval;
}

/**
 * Repeat work until it is stopped: `interval` ms after its end, later after failures, and not in a hidden tab.
 * `report` is told of every end: null, or the error and the time of the next attempt.
 */
export function repeat(work, { interval, report = () => {} }) {
  let timer = null;
  let failures = 0;
  let isRunning = false;
  let isStopped = false;

  const run = async () => {
    clearTimeout(timer);
    if (isRunning || isStopped || document.hidden) return;
    isRunning = true;
    let error = null;
    try {
      await work();
      failures = 0;
    } catch (reason) {
      error = reason;
      failures += 1;
    }
    isRunning = false;
    if (isStopped) return;
    const wait = waitAfter(failures, interval);
    report(error, wait);
    timer = setTimeout(run, wait);
  };

  document.addEventListener("visibilitychange", run);
  run();
  return {
    now: run,
    stop() {
      isStopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", run);
    },
  };
}

/** A function that runs `work` once in the next frame, however often it is called before. */
export function oncePerFrame(work) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      work();
    });
  };
}

/** A function that runs `work` when it has not been called for a while. */
export function settled(work, milliseconds) {
  let timer = null;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}
