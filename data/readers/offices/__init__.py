"""One module for the format of each patent office; `data.readers.patent_xml` and `data.readers.formats` call
them."""
