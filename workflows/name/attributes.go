package name

import (
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
)

// The search attributes by which workflows are found: a closed set, since SQL visibility has ten keyword columns. None holds personal data.
var (
	AttrTable   = temporal.NewSearchAttributeKeyKeyword("MillraceTable")
	AttrPhase   = temporal.NewSearchAttributeKeyKeyword("MillracePhase")
	AttrOutcome = temporal.NewSearchAttributeKeyKeyword("MillraceOutcome")
	AttrTrigger = temporal.NewSearchAttributeKeyKeyword("MillraceTrigger")
	AttrDay     = temporal.NewSearchAttributeKeyKeyword("MillraceDay")
	AttrRows    = temporal.NewSearchAttributeKeyInt64("MillraceRows")
	AttrBytes   = temporal.NewSearchAttributeKeyInt64("MillraceBytes")
)

// ScheduledStart is Temporal's own attribute: the time for which a schedule started a workflow, which is the logical time of its run.
var ScheduledStart = temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")

// Attributes is the whole set with its types. The platform adds what is missing on every start.
func Attributes() map[string]enums.IndexedValueType {
	all := map[string]enums.IndexedValueType{
		AttrRows.GetName():  enums.INDEXED_VALUE_TYPE_INT,
		AttrBytes.GetName(): enums.INDEXED_VALUE_TYPE_INT,
	}
	for _, k := range []string{
		AttrTable.GetName(), AttrPhase.GetName(), AttrOutcome.GetName(), AttrTrigger.GetName(), AttrDay.GetName(),
		"MillraceTenant", "MillraceSubjectKind", "MillraceView", "MillraceExperiment", "MillraceSuite",
	} {
		all[k] = enums.INDEXED_VALUE_TYPE_KEYWORD
	}
	return all
}
