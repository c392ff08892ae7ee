package elb

import (
	"slices"
	"strconv"
	"strings"
)

// newHeader returns the schema of CloudFront lines under a #Fields header, such as
// "#Fields: date time cs-method cs(Host)". Columns that this package knows have their
// usual names and kinds wherever they stand; others are strings, named as fieldName has
// it. Names behind the 59th are not used: their columns are extra ones.
func newHeader(header []byte) *schema {
	var columns []column
	taken := map[string]bool{"extra": true, "malformed": true, "aws.extra": true, "aws.malformed": true}
	for _, name := range strings.Fields(string(header[len(fieldsHeader):])) {
		if len(columns) == maxColumns-1 {
			break
		}
		i := slices.IndexFunc(cloudFrontColumns, func(c column) bool { return strings.EqualFold(c.aws, name) })
		c := column{aws: name}
		if i >= 0 {
			c = cloudFrontColumns[i]
		} else if c.name = fieldName(name); c.name == "" || isKnown(c.name) {
			c.name = "column"
		}
		if c.name == "" {
			c.name = fieldName(c.aws)
		}
		if c.ecs == "" {
			c.ecs = "aws.cloudfront." + c.name
		}
		if taken[c.name] { // twice in one header: JSON needs two names
			c = column{aws: name, name: c.name + "_" + strconv.Itoa(len(columns))}
			c.ecs = "aws.cloudfront." + c.name
		}
		taken[c.name] = true
		columns = append(columns, c)
	}
	return newSchema(CloudFront, columns)
}

// isKnown tells whether a standard column has that name.
func isKnown(name string) bool {
	return slices.ContainsFunc(cloudFrontColumns, func(c column) bool { return fieldName(c.aws) == name })
}
