"""One module for each format of a patent office; `patent_xml` is what the readers of XML share. A reader is
registered in `data.readers.formats`: by its root element in `_vocabulary`, or by its first bytes in
`format_of` and `_read`."""
