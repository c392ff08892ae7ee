package s3stub

import (
	"fmt"
	"net/http"
)

// apiError is an answer that is an error, as in "Error responses" of the S3 API
// reference.
type apiError struct {
	status  int
	code    string
	message string
	detail  [][2]string // further elements: name, text
	header  [][2]string
}

func failed(status int, code, message string) *apiError {
	return &apiError{status: status, code: code, message: message}
}

func invalidArgument(format string, args ...any) *apiError {
	return failed(http.StatusBadRequest, "InvalidArgument", fmt.Sprintf(format, args...))
}

func invalidRequest(message string) *apiError {
	return failed(http.StatusBadRequest, "InvalidRequest", message)
}

func accessDenied(message string) *apiError {
	return failed(http.StatusForbidden, "AccessDenied", message)
}

func noSuchBucket(name string) *apiError {
	e := failed(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	e.detail = [][2]string{{"BucketName", name}}
	return e
}

func noSuchKey(key string) *apiError {
	e := failed(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	e.detail = [][2]string{{"Key", key}}
	return e
}

func noSuchUpload(id string) *apiError {
	e := failed(http.StatusNotFound, "NoSuchUpload", "The specified upload does not exist. "+
		"The upload ID may be invalid, or the upload may have been aborted or completed.")
	e.detail = [][2]string{{"UploadId", id}}
	return e
}

func preconditionFailed(condition string) *apiError {
	e := failed(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	e.detail = [][2]string{{"Condition", condition}}
	return e
}

func entityTooLarge(size, limit int64) *apiError {
	e := failed(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	e.detail = [][2]string{{"ProposedSize", fmt.Sprint(size)}, {"MaxSizeAllowed", fmt.Sprint(limit)}}
	return e
}

func malformedXML() *apiError {
	return failed(http.StatusBadRequest, "MalformedXML",
		"The XML you provided was not well-formed or did not validate against our published schema")
}

func notImplemented() *apiError {
	return failed(http.StatusNotImplemented, "NotImplemented", "A header or query you provided implies functionality that is not implemented")
}

// codes are the codes of faults that give a status only.
var codes = map[int]string{
	http.StatusBadRequest:          "InvalidRequest",
	http.StatusForbidden:           "AccessDenied",
	http.StatusNotFound:            "NoSuchKey",
	http.StatusConflict:            "OperationAborted",
	http.StatusPreconditionFailed:  "PreconditionFailed",
	http.StatusTooManyRequests:     "TooManyRequests",
	http.StatusInternalServerError: "InternalError",
	http.StatusServiceUnavailable:  "SlowDown",
}

// messages are S3's, for faults.
var messages = map[string]string{
	"AccessDenied":  "Access Denied",
	"InternalError": "We encountered an internal error. Please try again.",
	"SlowDown":      "Please reduce your request rate.",
	"ExpiredToken":  "The provided token has expired.",
}
