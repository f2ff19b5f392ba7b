"""The hardware: device and precision, and the processes of a distributed run."""
