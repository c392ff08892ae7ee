package elb

import (
	"bytes"
	"fmt"
	"path"
	"strings"
)

// Format is the layout of a log.
type Format uint8

const (
	Unknown        Format = iota
	Classic               // access log of a Classic Load Balancer
	ALB                   // access log of an Application Load Balancer
	ALBConnection         // connection log of an Application Load Balancer
	ALBHealthCheck        // health check log of an Application Load Balancer
	NLB                   // access log of a Network Load Balancer (TLS listeners only)
	CloudFront            // standard log of CloudFront, tab-separated
	S3Access              // server access log of S3
	formats
)

var formatNames = [formats]string{
	"unknown", "classic", "alb", "alb-connection", "alb-health-check", "nlb", "cloudfront", "s3",
}

// String returns the format's name, such as "alb-connection".
func (f Format) String() string {
	if f < formats {
		return formatNames[f]
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// ParseFormat returns the format of that name, as String has it.
func ParseFormat(name string) (Format, error) {
	for f := Classic; f < formats; f++ {
		if formatNames[f] == name {
			return f, nil
		}
	}
	return Unknown, fmt.Errorf("elb: no format %q: want one of %s", name, strings.Join(formatNames[1:], ", "))
}

// Detect returns the format of a line, the first of the object named key. What the line
// looks like comes before what the name says, since objects are renamed and prefixes
// mixed. Either may be empty; neither known gives Unknown.
func Detect(key string, line []byte) Format {
	if f := detectLine(line); f != Unknown {
		return f
	}
	return detectKey(key)
}

// detectKey knows the names under which AWS delivers (see [Field.Source] for the pages):
//
//	…_elasticloadbalancing_us-east-2_app.web.50dc6c49_20180702T2225Z_….log.gz   ALB
//	conn_log…, health_check_log… before the same                                 its other logs
//	…_elasticloadbalancing_us-east-2_net.web.c6e77e28_….log.gz                  NLB
//	…_elasticloadbalancing_us-east-2_web_20150410T0815Z_….log                   Classic
//	E2ABCDEFGHIJKL.2019-11-14-20.1a2b3c4d.gz                                     CloudFront
//	2019-02-06-00-00-38-3E57427F3EXAMPLE                                         S3
func detectKey(key string) Format {
	name := path.Base(key)
	if _, rest, ok := strings.Cut(name, "_elasticloadbalancing_"); ok {
		_, balancer, _ := strings.Cut(rest, "_") // behind the region
		switch {
		case strings.HasPrefix(name, "conn_log"):
			return ALBConnection
		case strings.HasPrefix(name, "health_check_log"):
			return ALBHealthCheck
		case strings.HasPrefix(balancer, "app."):
			return ALB
		case strings.HasPrefix(balancer, "net."):
			return NLB
		}
		return Classic
	}
	if matches(name, "dddd-dd-dd-dd-dd-dd-") {
		return S3Access
	}
	if id, rest, ok := strings.Cut(name, "."); ok && strings.HasPrefix(id, "E") && matches(rest, "dddd-dd-dd-dd.") {
		return CloudFront
	}
	return Unknown
}

// detectLine tells formats apart by where their first time stands and what is beside it.
func detectLine(line []byte) Format {
	if len(line) > 0 && line[0] == '#' {
		if bytes.HasPrefix(line, fieldsHeader) || bytes.HasPrefix(line, versionHeader) {
			return CloudFront
		}
		return Unknown
	}
	if date, _, ok := bytes.Cut(line, tab); ok && matches(date, "dddd-dd-dd") && len(date) == len("dddd-dd-dd") {
		return CloudFront
	}
	first, rest, _ := bytes.Cut(line, space)
	second, rest, _ := bytes.Cut(rest, space)
	third, _, _ := bytes.Cut(rest, space)
	switch {
	case isoZone(first) != notTime:
		if isNumber(third) || isAbsent(third) && isAddress(second) {
			return ALBConnection
		}
		if isAbsent(third) || bytes.IndexByte(third, ':') >= 0 {
			return Classic
		}
	case isoZone(second) != notTime:
		if isNumber(third) || isAbsent(third) {
			return ALBHealthCheck
		}
		if len(third) > 0 {
			return ALB
		}
	case isoZone(third) != notTime && isNumber(second):
		return NLB
	case matches(third, "[dd/"):
		return S3Access
	}
	return Unknown
}

// matches tells whether s begins as the pattern says, in which d is any digit.
func matches[T string | []byte](s T, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] == 'd' {
			if !isDigit(s[i]) {
				return false
			}
		} else if s[i] != pattern[i] {
			return false
		}
	}
	return true
}
