package registry

import (
	"fmt"
	"net/http"
	"strconv"
)

// apiError is an answer in Confluent's error form. The codes are Confluent's; where it has none, the HTTP status is the code.
type apiError struct {
	Status  int    `json:"-"`
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message + " (" + strconv.Itoa(e.Code) + ")" }

func errorf(status, code int, format string, a ...any) *apiError {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, a...)}
}

func notFound(code int, format string, a ...any) *apiError {
	return errorf(http.StatusNotFound, code, format, a...)
}

func unprocessable(code int, format string, a ...any) *apiError {
	return errorf(http.StatusUnprocessableEntity, code, format, a...)
}

const (
	codeIncompatible       = 409
	codeSubjectNotFound    = 40401
	codeVersionNotFound    = 40402
	codeSchemaNotFound     = 40403
	codeSubjectDeleted     = 40404
	codeSubjectNotDeleted  = 40405
	codeVersionDeleted     = 40406
	codeVersionNotDeleted  = 40407
	codeNoSubjectLevel     = 40408
	codeNoSubjectMode      = 40409
	codeInvalidSchema      = 42201
	codeInvalidVersion     = 42202
	codeInvalidLevel       = 42203
	codeInvalidMode        = 42204
	codeNotPermitted       = 42205
	codeReferenceExists    = 42206
	codeInvalidSubject     = 42208
	codeSchemaTooLarge     = 42209
	codeInvalidRuleset     = 42210
	codeStore              = 50001
	codeTimeout            = 50002
	subjectNotFoundMessage = "Subject '%s' not found."
)

func errSubjectNotFound(s string) *apiError {
	return notFound(codeSubjectNotFound, subjectNotFoundMessage, s)
}

func errVersionNotFound(v int) *apiError {
	return notFound(codeVersionNotFound, "Version %d not found.", v)
}

func errInvalidSchema(format string, a ...any) *apiError {
	return unprocessable(codeInvalidSchema, "Invalid schema: "+format, a...)
}

func errNotPermitted(format string, a ...any) *apiError {
	return unprocessable(codeNotPermitted, format, a...)
}

// errUnavailable is the answer while Run has not read the topic; 503 makes clients try again.
func errUnavailable() *apiError {
	return errorf(http.StatusServiceUnavailable, codeStore, "The schema topic has not been read yet; try again")
}

func errStore(err error) *apiError {
	return errorf(http.StatusInternalServerError, codeStore, "Error in the schema topic: %s", err)
}

func errTimeout() *apiError {
	return errorf(http.StatusInternalServerError, codeTimeout, "The write to the schema topic was not confirmed in time; its outcome is unknown, and repeating the request is safe")
}
