"""Report of a run: the data of data_prep.funnel.report and viewer.training_data as one HTML page that works offline."""
