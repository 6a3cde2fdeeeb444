"""What Wisp knows about running: plain functions over arrays, no framework, no input or output.

Units: metres, seconds, metres a second, pace in seconds a kilometre, degrees of WGS84. The sign of
every gap: positive is behind the ghost, negative is ahead of it.

What a run is: `track`, `clean`, `geodesy`, `elevation`, `grade`, `splits`, `analysis`.
How it is raced: `ghost`, `curve` (when the ghost was where), `route` (where its way lies), `fixes`
and `odometer` (what is believed of a device), `progress` and `following` (how far along the way
the runner is), `race` (gap, splits, events) with `standing` (its words) and `result`, `replay` (the
same from the whole track), `snapshot` (a race as bytes), `racedata` (a ghost for a phone),
`drawing`, `livesegments` (segments while they are run).
What is made of many runs: `similarity`, `segments`, `prediction`, `load`, `trend`.
What others may see: `privacy`, `simplify`, `lines`. Where: `timezones`. Files: `files`.
"""
