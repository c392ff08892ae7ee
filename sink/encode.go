package sink

// stamp is how a record's time is written: Logstash and Elasticsearch take milliseconds
// everywhere, more only lately.
const stamp = "2006-01-02T15:04:05.000Z"

// appendDocument appends a record's document. Where field is not "", the record's time becomes
// the document's first member under that name; a document that is no object stays as it is.
func appendDocument(dst []byte, r Record, field string) []byte {
	if field == "" || r.Time.IsZero() || r.Data[0] != '{' {
		return append(dst, r.Data...)
	}
	dst = append(dst, '{', '"')
	dst = append(dst, field...)
	dst = append(dst, `":"`...)
	dst = r.Time.UTC().AppendFormat(dst, stamp)
	dst = append(dst, '"')
	rest := r.Data[1:]
	for _, c := range rest {
		if c == ' ' || c == '\t' || c == '\r' {
			continue
		}
		if c != '}' {
			dst = append(dst, ',')
		}
		break
	}
	return append(dst, rest...)
}

// appendLine is appendDocument with a line feed.
func appendLine(dst []byte, r Record, field string) []byte {
	return append(appendDocument(dst, r, field), '\n')
}
