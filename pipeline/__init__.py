"""The flow: capture, track, encode, retarget, render, composite, deliver; live, batch and the page all call it."""
