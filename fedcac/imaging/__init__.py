"""DICOM to volumes in Hounsfield units, series selection and pairing."""
