"""The flow: capture, track, encode, retarget, render, composite, deliver; live, batch and the page all call it."""

import os

# Before numpy starts its threads: for our small matrices OpenBLAS' second thread only spins, on the core that the tracker
# and the renderer need (measured: 21 against 37 frames a second for the whole loop on two cores).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# OpenCV's second thread waits for its next picture by spinning as well (measured: a twelfth of relighting's time on two cores).
if (os.cpu_count() or 1) <= 2:
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
