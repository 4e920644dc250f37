"""Site sources that pull from a PACS: DIMSE or DICOMweb, into a cache that forgets in time.

A worklist, or a range of dates, becomes queries at study and series level; the series that the
site's rules choose are pulled, resumably, into a folder; a manifest beside them is what
`exams.dicom_source` reads. Nothing else is asked of the PACS, and nothing is ever sent to it.
"""
