"""One module for each format of a patent office, called by `data.readers.formats`; `patent_xml` is what the
readers of XML share."""
