"""What Wisp knows about running: plain functions over arrays, no framework, no input or output.

Units: metres, seconds, metres a second, pace in seconds a kilometre, degrees of WGS84. The sign of
every gap: positive is behind the ghost, negative is ahead of it.

What a run is: `track`, `clean`, `geodesy`, `elevation`, `splits`, `efforts`, `analysis`.
How it is raced: `curve` (when the ghost was where), `route` (where its way lies), `progress` (how
far along it the runner is), `race` (gap, splits, events, result), `replay` (the same from the whole
track), `drawing`.
What is made of many runs: `similarity`, `segments`, `grade`, `prediction`, `load`, `trend`.
What others may see: `privacy`, `simplify`, `lines`.
Files: `files`.
"""
