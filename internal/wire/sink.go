package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/sink"
	"myrmidon/sink/elastic"
	"myrmidon/sink/kinesis"
	"myrmidon/sink/objects"
)

// sinkParameters are those that the query of a sink's address may have, by its scheme.
var sinkParameters = map[string][]string{
	"lumberjack":  {"connections", "window", "compress", "time"},
	"lumberjacks": {"connections", "window", "compress", "time", "ca", "cert", "key"},
	"tcp":         {"connections", "time"},
	"tls+tcp":     {"connections", "time", "ca", "cert", "key"},
	"http":        {"gzip"},
	"https":       {"gzip", "ca", "cert", "key"},
	"kinesis":     {"profile", "endpoint", "region"},
	"file":        {"rotate-bytes", "rotate-after", "time"},
}

// Sink opens the sink at an address:
//
//   - standard output, a line a record
//     ./out.ndjson, file:///srv/x.ndjson a file, which records are appended to
//     lumberjack://logstash:5044         Logstash's beats input, acknowledged; TLS by lumberjacks://
//     tcp://logstash:5000                lines of JSON, confirmed by nobody; TLS by tls+tcp://
//     https://elastic:9200/index         Elasticsearch or OpenSearch; http://, too
//     kinesis://stream?region=REGION     Amazon Kinesis
//     s3://bucket/folder                 objects of packed lines; addresses as of [Store]
//
// A query may follow, whose values are percent-decoded:
//
//	connections=N window=N compress=1…9    of lumberjack and tcp
//	time=@timestamp                        adds the record's time under that name
//	ca=FILE cert=FILE key=FILE             PEM files, for TLS: an authority; who we are
//	gzip=false                             of http(s): requests are not packed
//	profile=NAME endpoint=URL region=NAME  of kinesis
//	rotate-bytes=N rotate-after=1h         of a file: see sink.FileConfig
//
// Secrets have no place in an address: Elasticsearch's come from ELASTICSEARCH_API_KEY, or
// ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD, those of AWS from its own environment and
// files. Nothing is sent before the sink's first Send. Errors are permanent. The caller closes
// the sink.
func Sink(address string) (sink.Sink, error) {
	if address == "-" {
		return sink.NewWriter(os.Stdout, "")
	}
	if isS3(address) {
		store, err := Store(address)
		if err != nil {
			return nil, err
		}
		return objects.New(objects.Config{Store: store})
	}
	a, err := parseSink(address)
	if err != nil {
		return nil, err
	}
	return a.open()
}

// sinkAddress is an address of a sink, taken apart.
type sinkAddress struct {
	scheme, host, path string
	values             map[string]string
}

// parseSink takes an address apart. Errors do not repeat what may be a secret.
func parseSink(address string) (sinkAddress, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		if address == "" || strings.Contains(address, ":") {
			return sinkAddress{}, refuseSink("it has no scheme")
		}
		return sinkAddress{scheme: "file", path: address}, nil
	}
	known, ok := sinkParameters[scheme]
	if !ok {
		return sinkAddress{}, refuseSink(fmt.Sprintf("sinks of kind %.20q are not known to this version", scheme))
	}
	rest, query, _ := strings.Cut(rest, "?")
	a := sinkAddress{scheme: scheme, values: make(map[string]string)}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		slash = len(rest)
	}
	a.host = rest[:slash]
	if strings.Contains(a.host, "@") || scheme != "file" && strings.ContainsAny(rest, "@#") {
		return sinkAddress{}, refuseSink("it holds a user name or a password")
	}
	var err error
	if a.path, err = url.PathUnescape(rest[slash:]); err != nil {
		return sinkAddress{}, refuseSink("it has a % that is no escape")
	}
	if query == "" {
		return a, nil
	}
	for field := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(field, "=")
		for _, w := range words {
			if strings.Contains(strings.ToLower(name), w) {
				return sinkAddress{}, refuseSink(fmt.Sprintf("it holds no secrets, and this one has the parameter %.40q", name))
			}
		}
		if !slices.Contains(known, name) {
			return sinkAddress{}, refuseSink(fmt.Sprintf("the parameter %.40q is not known for %s://, but %s", name, scheme, strings.Join(known, ", ")))
		}
		decoded, err := url.QueryUnescape(value)
		if err != nil || decoded == "" {
			return sinkAddress{}, refuseSink(fmt.Sprintf("the parameter %q has no value, or a %% that is no escape", name))
		}
		if _, twice := a.values[name]; twice {
			return sinkAddress{}, refuseSink(fmt.Sprintf("the parameter %q comes twice", name))
		}
		a.values[name] = decoded
	}
	return a, nil
}

func refuseSink(why string) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("this address of a sink cannot be used: %s", why),
		"an address is lumberjack://host:5044, tcp://host:port, https://host/index, kinesis://stream?region=REGION, s3://bucket/folder, file:///path or -; "+
			"secrets come from the environment"))
}

// number reads a parameter that is a whole number from 1 on.
func (a sinkAddress) number(name string, most int64) (int64, error) {
	text, ok := a.values[name]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, refuseSink(fmt.Sprintf("%s=%.40s is no number from 1 to %d", name, text, most))
	}
	return n, nil
}

// open makes the sink.
func (a sinkAddress) open() (sink.Sink, error) {
	switch a.scheme {
	case "file":
		return a.file()
	case "kinesis":
		if a.path != "" && a.path != "/" {
			return nil, refuseSink("the name of a stream has no /")
		}
		return kinesis.New(context.Background(), kinesis.Config{
			Stream: a.host, Profile: a.values["profile"], Endpoint: a.values["endpoint"], Region: a.values["region"],
		})
	}
	secure, err := a.tls()
	if err != nil {
		return nil, err
	}
	if a.scheme == "http" || a.scheme == "https" {
		cfg, err := a.index(secure)
		if err != nil {
			return nil, err
		}
		return elastic.New(cfg)
	}
	if a.path != "" && a.path != "/" {
		return nil, refuseSink("nothing follows host:port")
	}
	if _, port, err := net.SplitHostPort(a.host); err != nil || port == "" {
		return nil, refuseSink("it names no host:port")
	}
	connections, err := a.number("connections", 1000)
	if err != nil {
		return nil, err
	}
	conns := sink.Conns{Address: a.host, TLS: secure, Connections: int(connections)}
	if a.scheme == "tcp" || a.scheme == "tls+tcp" {
		return sink.NewTCP(sink.TCPConfig{Conns: conns, TimeField: a.values["time"]})
	}
	window, err := a.number("window", 1<<20)
	if err != nil {
		return nil, err
	}
	compress, err := a.number("compress", 9)
	if err != nil {
		return nil, err
	}
	return sink.NewLumberjack(sink.LumberjackConfig{Conns: conns, Window: int(window), Compress: int(compress), TimeField: a.values["time"]})
}

func (a sinkAddress) file() (sink.Sink, error) {
	if a.host != "" && a.host != "localhost" {
		return nil, refuseSink("a file of this machine has three slashes: file:///path")
	}
	bytes, err := a.number("rotate-bytes", 1<<50)
	if err != nil {
		return nil, err
	}
	var after time.Duration
	if text, ok := a.values["rotate-after"]; ok {
		if after, err = time.ParseDuration(text); err != nil || after <= 0 {
			return nil, refuseSink(fmt.Sprintf("rotate-after=%.40s is no time such as 1h or 15m", text))
		}
	}
	return sink.NewFile(sink.FileConfig{Path: a.path, RotateBytes: bytes, RotateAfter: after, TimeField: a.values["time"]})
}

func (a sinkAddress) index(secure *tls.Config) (elastic.Config, error) {
	folder, index := path.Split(strings.TrimSuffix(a.path, "/"))
	plain := false
	if text, ok := a.values["gzip"]; ok {
		packed, err := strconv.ParseBool(text)
		if err != nil {
			return elastic.Config{}, refuseSink("gzip is true or false")
		}
		plain = !packed
	}
	base := url.URL{Scheme: a.scheme, Host: a.host, Path: folder}
	return elastic.Config{URL: base.String(), Index: index, Plain: plain, TLS: secure}, nil
}

// tls reads the files that the address names. It is nil where the scheme has no TLS.
func (a sinkAddress) tls() (*tls.Config, error) {
	if a.scheme != "https" && a.scheme != "lumberjacks" && a.scheme != "tls+tcp" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file, ok := a.values["ca"]; ok {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, refuseSink(fmt.Sprintf("the authority's file cannot be read: %v", err))
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, refuseSink(fmt.Sprintf("%s holds no certificate in PEM", file))
		}
	}
	cert, key := a.values["cert"], a.values["key"]
	if (cert == "") != (key == "") {
		return nil, refuseSink("cert and key come together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, refuseSink(fmt.Sprintf("the certificate and its key cannot be used: %v", err))
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Index opens the index, alias, data stream or pattern of Elasticsearch or OpenSearch at an
// address such as [Sink] has, to be counted. ok is false if the address is none of those.
func Index(address string) (index *elastic.Sink, ok bool, err error) {
	if scheme, _, _ := strings.Cut(address, "://"); scheme != "http" && scheme != "https" {
		return nil, false, nil
	}
	a, err := parseSink(address)
	if err != nil {
		return nil, true, err
	}
	secure, err := a.tls()
	if err != nil {
		return nil, true, err
	}
	cfg, err := a.index(secure)
	if err != nil {
		return nil, true, err
	}
	cfg.Counted = true
	index, err = elastic.New(cfg)
	return index, true, err
}
