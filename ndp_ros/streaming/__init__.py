"""The real-time side: the loop process, its clock, its guard and its shared memory."""
