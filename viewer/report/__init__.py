"""The run report: what data_prep.funnel.report and viewer.training_data read, as one page that opens offline."""
