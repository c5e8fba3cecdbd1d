"""Reading files of questions, in the formats of `pandacli.batch.formats`."""
