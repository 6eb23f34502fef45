"""The run report: what data_prep.report and lm.report read from a run folder, as one page that opens offline."""
