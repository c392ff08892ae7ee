// Package elb reads the access logs that AWS delivers to a bucket: those of Classic,
// Application and Network Load Balancers, the connection and health check logs of
// Application Load Balancers, CloudFront's standard logs and S3's server access logs.
//
// A line is split into columns. A column has a name by its position (in CloudFront by
// the #Fields header) and holds one or more fields: the column client:port holds
// client_ip and client_port. [Fields] lists the fields of a [Format]. A [Record] is a
// line that was split; [Record.Get] looks at its fields, [Encoder.AppendJSON] writes all
// of them, under AWS's names or those of the Elastic Common Schema. [NewReader] reads
// the lines of a whole object:
//
//	lines := elb.NewReader(body, elb.Config{Key: "AWSLogs/…_app.web.….log.gz"})
//	for record, err := range lines.Lines() {
//		…
//		out = elb.Encoder{}.AppendJSON(out[:0], record)
//	}
//
// # Promises
//
// No line is dropped silently. A line yields a record or an error that says where it
// stands and why it is no record, and reading goes on after it. Only empty lines and
// comments are skipped, and counted.
//
// AWS appends columns every year or two. Columns that have no name yet are kept under
// "extra"; a line that ends early, as those of former years do, lacks the later fields.
// Neither is an error.
//
// A field has one type, whatever a line says. "-" means absent. Text that does not fit
// (a status of "abc") is kept under "malformed" and never changes a field's type.
//
// The same line gives the same JSON. It is always valid: control characters are escaped
// and bytes that are not UTF-8 become U+FFFD. Splitting and writing a line allocate
// nothing.
//
// # Quotes
//
// A quote closes a column only before a space or at the end of the line, so that
// "h2","http/1.1" is one column. Load balancers escape a quote in what a client sent, as
// \" (Classic) or \x22 (Application); S3 writes it as it came. A quote that is escaped or
// may be a client's therefore closes only if the next quote of the line opens a column.
// What a client sent in S3's logs can still look like the end of a column; nobody can
// tell. Escapes are not undone: fields hold what AWS wrote, backslashes and percent signs
// included.
package elb
