package bigquery

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	bq "cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"

	"millrace/internal/fault"
)

// The ids of what can go wrong.
const (
	unreachableID fault.ID = "MR-BQ-001"
	refusedID     fault.ID = "MR-BQ-002"
	quotaID       fault.ID = "MR-BQ-003"
	schemaID      fault.ID = "MR-BQ-004"
	costID        fault.ID = "MR-BQ-005"
	partitionsID  fault.ID = "MR-BQ-006"
	rangeID       fault.ID = "MR-BQ-007"
	remadeID      fault.ID = "MR-BQ-008"
	stagedID      fault.ID = "MR-BQ-009"
	jobID         fault.ID = "MR-BQ-010"
)

// What BigQuery says in the field reason of its errors.
var (
	quotaReasons     = []string{"quotaExceeded", "rateLimitExceeded", "jobRateLimitExceeded", "tableUnavailable", "resourcesExceeded"}
	transientReasons = []string{"backendError", "internalError", "jobInternalError", "jobBackendError", "stopped", "timeout", "rateLimitExceeded", "jobRateLimitExceeded"}
	refusedReasons   = []string{"accessDenied", "billingNotEnabled", "blocked", "billingTierLimitExceeded", "authError", "required", "responseTooLarge"}
)

// reasonOf is what an error of BigQuery says of itself: its HTTP status, 0 for one that a job ended with, and its reason.
func reasonOf(err error) (status int, reason string) {
	var api *googleapi.Error
	if errors.As(err, &api) {
		if len(api.Errors) > 0 {
			reason = api.Errors[0].Reason
		}
		return api.Code, reason
	}
	var job *bq.Error
	if errors.As(err, &job) {
		return 0, job.Reason
	}
	return 0, ""
}

func hasStatus(err error, status int) bool {
	s, _ := reasonOf(err)
	return s == status
}

// gone says whether a table that is asked for is not there.
func gone(err error) bool {
	status, reason := reasonOf(err)
	return status == http.StatusNotFound || reason == "notFound"
}

// transient says whether the same may succeed when it is done again a little later.
func transient(err error) bool {
	status, reason := reasonOf(err)
	switch {
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		return true
	case slices.Contains(transientReasons, reason):
		return true
	case slices.ContainsFunc([]string{"concurrent update", "ransaction conflict", "Failed to commit", "Conflict on update", "violates primary key constraint"}, func(s string) bool { return strings.Contains(err.Error(), s) }):
		return true // another was first; all but the first are the emulator's words, of a job id too
	}
	return unreachable(err)
}

func unreachable(err error) bool {
	var dial *net.OpError
	var web *url.Error
	return errors.As(err, &dial) || errors.As(err, &web) || errors.Is(err, context.DeadlineExceeded)
}

// classify gives an error the id that tells what to do about it.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := fault.IDOf(err); ok {
		return err
	}
	status, reason := reasonOf(err)
	switch {
	case slices.Contains(quotaReasons, reason) || status == http.StatusTooManyRequests:
		return fault.New(quotaID, err)
	case reason == "bytesBilledLimitExceeded":
		return fault.New(costID, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || slices.Contains(refusedReasons, reason) || strings.Contains(err.Error(), "could not find default credentials"):
		return fault.New(refusedID, err)
	case status >= http.StatusInternalServerError || unreachable(err):
		return fault.New(unreachableID, err)
	}
	return fault.New(jobID, err)
}

// Retryable says whether trying again later may help: false is for what somebody has to mend first.
func Retryable(err error) bool {
	switch id, _ := fault.IDOf(err); id {
	case refusedID, schemaID, costID, partitionsID, rangeID, remadeID:
		return false
	}
	return true
}
