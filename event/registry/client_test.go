package registry

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"
)

// TestEveryCallOfTheGoClient goes through every call that pkg/sr has.
func TestEveryCallOfTheGoClient(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	cl, ctx := in.client(t), t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	equal := func(what string, got, want any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	deleted := sr.WithParams(ctx, sr.ShowDeleted)
	const subject = "users/eu-value" // the slash has to survive the path

	types, err := cl.SupportedTypes(ctx)
	must("SupportedTypes", err)
	equal("SupportedTypes", types, []sr.SchemaType{sr.TypeAvro})

	first, err := cl.CreateSchema(ctx, subject, sr.Schema{Schema: userV1})
	must("CreateSchema", err)
	equal("CreateSchema", first, sr.SubjectSchema{Subject: subject, Version: 1, ID: 1, Schema: sr.Schema{Schema: userV1}})
	second, err := cl.CreateSchemaWithIDAndVersion(ctx, subject, sr.Schema{Schema: userV2}, -1, -1)
	must("CreateSchemaWithIDAndVersion", err)
	equal("CreateSchemaWithIDAndVersion", second, sr.SubjectSchema{Subject: subject, Version: 2, ID: 2, Schema: sr.Schema{Schema: userV2}})
	id, err := cl.RegisterSchema(ctx, "other-value", sr.Schema{Schema: userV1}, -1, -1)
	must("RegisterSchema", err)
	equal("the same schema under another subject has the same id", id, 1)
	_, err = cl.RegisterSchema(ctx, subject, sr.Schema{Schema: userBroken}, -1, -1)
	wantCode(t, "RegisterSchema of an incompatible schema", err, 409)
	_, err = cl.RegisterSchema(ctx, subject, sr.Schema{Schema: userV3}, 77, -1)
	wantCode(t, "RegisterSchema with an id outside of import mode", err, 42205)
	_, err = cl.RegisterSchema(ctx, subject, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON}, -1, -1)
	wantCode(t, "RegisterSchema of JSON", err, 42201)

	subjects, err := cl.Subjects(ctx)
	must("Subjects", err)
	equal("Subjects", subjects, []string{"other-value", subject})
	subjects, err = cl.Subjects(sr.WithParams(ctx, sr.SubjectPrefix("users")))
	must("Subjects by prefix", err)
	equal("Subjects by prefix", subjects, []string{subject})
	subjects, err = cl.Subjects(sr.WithParams(ctx, sr.Offset(1), sr.Limit(5)))
	must("Subjects by page", err)
	equal("Subjects by page", subjects, []string{subject})

	schema, err := cl.SchemaByID(ctx, 2)
	must("SchemaByID", err)
	equal("SchemaByID", schema, sr.Schema{Schema: userV2})
	_, err = cl.SchemaByID(ctx, 99)
	wantCode(t, "SchemaByID", err, 40403)
	txt, err := cl.SchemaTextByID(ctx, 2)
	must("SchemaTextByID", err)
	equal("SchemaTextByID", txt, userV2)
	names, err := cl.SubjectsByID(ctx, 1)
	must("SubjectsByID", err)
	equal("SubjectsByID", names, []string{"other-value", subject})
	names, err = cl.SubjectsByID(sr.WithParams(ctx, sr.Subject(subject)), 1)
	must("SubjectsByID of one subject", err)
	equal("SubjectsByID of one subject", names, []string{subject})
	uses, err := cl.SchemaVersionsByID(ctx, 1)
	must("SchemaVersionsByID", err)
	equal("SchemaVersionsByID", uses, []sr.SubjectVersion{{Subject: "other-value", Version: 1}, {Subject: subject, Version: 1}})
	usages, err := cl.SchemaUsagesByID(ctx, 2)
	must("SchemaUsagesByID", err)
	equal("SchemaUsagesByID", usages, []sr.SubjectSchema{second})
	_, err = cl.SchemaByGUID(ctx, "b94f1f6f-9c4a-4a0e-8c3e-0b9e8b0b0b0b")
	wantCode(t, "SchemaByGUID: no schema has a GUID here", err, 40403)
	_, err = cl.SchemaIDsByGUID(ctx, "b94f1f6f-9c4a-4a0e-8c3e-0b9e8b0b0b0b")
	wantCode(t, "SchemaIDsByGUID: no schema has a GUID here", err, 40403)

	versions, err := cl.SubjectVersions(ctx, subject)
	must("SubjectVersions", err)
	equal("SubjectVersions", versions, []int{1, 2})
	_, err = cl.SubjectVersions(ctx, "nobody")
	wantCode(t, "SubjectVersions", err, 40401)
	got, err := cl.SchemaByVersion(ctx, subject, -1)
	must("SchemaByVersion latest", err)
	equal("SchemaByVersion latest", got, second)
	_, err = cl.SchemaByVersion(ctx, subject, 9)
	wantCode(t, "SchemaByVersion", err, 40402)
	txt, err = cl.SchemaTextByVersion(ctx, subject, 1)
	must("SchemaTextByVersion", err)
	equal("SchemaTextByVersion", txt, userV1)
	all, err := cl.AllSchemas(ctx)
	must("AllSchemas", err)
	other := sr.SubjectSchema{Subject: "other-value", Version: 1, ID: 1, Schema: sr.Schema{Schema: userV1}}
	equal("AllSchemas", all, []sr.SubjectSchema{other, first, second})
	all, err = cl.AllSchemas(sr.WithParams(ctx, sr.LatestOnly, sr.SubjectPrefix(":*:users")))
	must("AllSchemas, latest only", err)
	equal("AllSchemas, latest only", all, []sr.SubjectSchema{second})
	all, err = cl.Schemas(ctx, subject)
	must("Schemas", err)
	equal("Schemas", all, []sr.SubjectSchema{first, second})
	got, err = cl.LookupSchema(ctx, subject, sr.Schema{Schema: userV1})
	must("LookupSchema", err)
	equal("LookupSchema", got, first)
	_, err = cl.LookupSchema(ctx, subject, sr.Schema{Schema: userV3})
	wantCode(t, "LookupSchema", err, 40403)
	_, err = cl.LookupSchema(ctx, "nobody", sr.Schema{Schema: userV3})
	wantCode(t, "LookupSchema", err, 40401)

	equal("Compatibility", cl.Compatibility(ctx)[0].Level, sr.CompatFullTransitive)
	wantCode(t, "Compatibility of a subject without one", cl.Compatibility(ctx, subject)[0].Err, 40408)
	equal("Compatibility, default to global", cl.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), subject)[0].Level, sr.CompatFullTransitive)
	set := cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatBackward}, subject, sr.GlobalSubject)
	must("SetCompatibility", set[0].Err)
	must("SetCompatibility", set[1].Err)
	equal("SetCompatibility", set[0].Level, sr.CompatBackward)
	equal("Compatibility", cl.Compatibility(ctx, subject)[0].Level, sr.CompatBackward)
	reset := cl.ResetCompatibility(ctx, subject, sr.GlobalSubject)
	must("ResetCompatibility", reset[0].Err)
	must("ResetCompatibility", reset[1].Err)
	equal("ResetCompatibility", reset[0].Level, sr.CompatBackward)
	equal("Compatibility", cl.Compatibility(ctx)[0].Level, sr.CompatFullTransitive)
	wantCode(t, "ResetCompatibility of a subject without one", cl.ResetCompatibility(ctx, "nobody")[0].Err, 40401)
	wantCode(t, "SetCompatibility with an alias", cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFull, Alias: "x"}, subject)[0].Err, 42205)

	check, err := cl.CheckCompatibility(ctx, subject, -1, sr.Schema{Schema: userV3})
	must("CheckCompatibility", err)
	equal("CheckCompatibility", check, sr.CheckCompatibilityResult{Is: true})
	check, err = cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, -2, sr.Schema{Schema: userBroken})
	must("CheckCompatibility", err)
	if check.Is || len(check.Messages) == 0 {
		t.Errorf("CheckCompatibility of an incompatible schema: %+v", check)
	}
	check, err = cl.CheckCompatibility(ctx, subject, 1, sr.Schema{Schema: userBroken})
	must("CheckCompatibility", err)
	equal("CheckCompatibility without verbose", check, sr.CheckCompatibilityResult{})
	_, err = cl.CheckCompatibility(ctx, subject, 9, sr.Schema{Schema: userBroken})
	wantCode(t, "CheckCompatibility", err, 40402)

	refs := []sr.SchemaReference{{Name: "shop.User", Subject: subject, Version: 1}}
	order := sr.Schema{Schema: `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"by","type":"User"}]}`, References: refs}
	made, err := cl.CreateSchema(ctx, "orders-value", order)
	must("CreateSchema with references", err)
	equal("CreateSchema with references", made, sr.SubjectSchema{Subject: "orders-value", Version: 1, ID: 3, Schema: order})
	by, err := cl.SchemaReferences(ctx, subject, 1)
	must("SchemaReferences", err)
	equal("SchemaReferences", by, []sr.SubjectSchema{made})
	_, err = cl.DeleteSubject(ctx, subject, sr.SoftDelete)
	wantCode(t, "DeleteSubject of a referenced subject", err, 42206)
	wantCode(t, "DeleteSchema of a referenced version", cl.DeleteSchema(ctx, subject, 1, sr.SoftDelete), 42206)

	wantCode(t, "DeleteSchema for good before a soft delete", cl.DeleteSchema(ctx, subject, 2, sr.HardDelete), 40407)
	must("DeleteSchema", cl.DeleteSchema(ctx, subject, 2, sr.SoftDelete))
	wantCode(t, "DeleteSchema twice", cl.DeleteSchema(ctx, subject, 2, sr.SoftDelete), 40406)
	_, err = cl.SchemaByVersion(ctx, subject, 2)
	wantCode(t, "SchemaByVersion of a deleted version", err, 40402)
	got, err = cl.SchemaByVersion(deleted, subject, 2)
	must("SchemaByVersion of a deleted version", err)
	equal("SchemaByVersion of a deleted version", got, second)
	versions, err = cl.SubjectVersions(sr.WithParams(ctx, sr.DeletedOnly), subject)
	must("SubjectVersions, deleted only", err)
	equal("SubjectVersions, deleted only", versions, []int{2})
	_, err = cl.SchemaByID(ctx, 2)
	must("SchemaByID after a soft delete: data written with it lives on", err)
	must("DeleteSchema for good", cl.DeleteSchema(ctx, subject, 2, sr.HardDelete))
	_, err = cl.SchemaByID(ctx, 2)
	wantCode(t, "SchemaByID after a permanent delete", err, 40403)

	_, err = cl.DeleteSubject(ctx, "other-value", sr.HardDelete)
	wantCode(t, "DeleteSubject for good before a soft delete", err, 40405)
	gone, err := cl.DeleteSubject(ctx, "other-value", sr.SoftDelete)
	must("DeleteSubject", err)
	equal("DeleteSubject", gone, []int{1})
	_, err = cl.DeleteSubject(ctx, "other-value", sr.SoftDelete)
	wantCode(t, "DeleteSubject twice", err, 40404)
	subjects, err = cl.Subjects(sr.WithParams(ctx, sr.DeletedOnly))
	must("Subjects, deleted only", err)
	equal("Subjects, deleted only", subjects, []string{"other-value"})
	subjects, err = cl.Subjects(deleted)
	must("Subjects, deleted ones too", err)
	equal("Subjects, deleted ones too", subjects, []string{"orders-value", "other-value", subject})
	got, err = cl.LookupSchema(deleted, "other-value", sr.Schema{Schema: userV1})
	must("LookupSchema of a deleted subject", err)
	equal("LookupSchema of a deleted subject", got, other)
	_, err = cl.DeleteSubject(ctx, "other-value", sr.HardDelete)
	must("DeleteSubject for good", err)
	_, err = cl.DeleteSubject(ctx, "other-value", sr.HardDelete)
	wantCode(t, "DeleteSubject of nothing", err, 40401)

	equal("Mode", cl.Mode(ctx)[0].Mode, sr.ModeReadWrite)
	wantCode(t, "Mode of a subject without one", cl.Mode(ctx, subject)[0].Err, 40409)
	must("SetMode", cl.SetMode(ctx, sr.ModeReadOnly)[0].Err)
	_, err = cl.RegisterSchema(ctx, subject, sr.Schema{Schema: userV3}, -1, -1)
	wantCode(t, "RegisterSchema in read-only mode", err, 42205)
	_, err = cl.RegisterSchema(ctx, subject, sr.Schema{Schema: userV1}, -1, -1)
	must("RegisterSchema of a known schema in read-only mode", err)
	must("ResetMode", cl.ResetMode(ctx)[0].Err)
	wantCode(t, "SetMode to import over existing schemas", cl.SetMode(ctx, sr.ModeImport)[0].Err, 42205)
	must("SetMode to import for a new subject", cl.SetMode(ctx, sr.ModeImport, "copied-value")[0].Err)
	_, err = cl.RegisterSchema(ctx, "copied-value", sr.Schema{Schema: userV3}, -1, -1)
	wantCode(t, "RegisterSchema without an id in import mode", err, 42205)
	id, err = cl.RegisterSchema(ctx, "copied-value", sr.Schema{Schema: userV3}, 500, 7)
	must("RegisterSchema with an id in import mode", err)
	equal("RegisterSchema with an id in import mode", id, 500)
	_, err = cl.RegisterSchema(ctx, "copied-value", sr.Schema{Schema: userV2}, 500, 8)
	wantCode(t, "RegisterSchema with a used id", err, 42205)
	must("ResetMode", cl.ResetMode(ctx, "copied-value")[0].Err)
	id, err = cl.RegisterSchema(ctx, "new-value", sr.Schema{Schema: `"long"`}, -1, -1)
	must("RegisterSchema after an import", err)
	equal("ids go on after the highest imported one", id, 501)
	schema, err = cl.SchemaByID(sr.WithParams(ctx, sr.FetchMaxID), 501)
	must("SchemaByID with the highest id", err)
	equal("SchemaByID with the highest id", schema.Schema, `"long"`)

	contexts, err := cl.Contexts(ctx)
	must("Contexts", err)
	equal("Contexts", contexts, []string{"."})
	wantCode(t, "DeleteContext", cl.DeleteContext(ctx, "staging"), 42205)
	subjects, err = cl.Subjects(sr.InContext(ctx, ":.:")) // "." does not survive the client's path cleaning
	must("Subjects in the default context", err)
	if !slices.Contains(subjects, subject) {
		t.Errorf("the default context lacks %s: %v", subject, subjects)
	}
	_, err = cl.Subjects(sr.InContext(ctx, ".staging"))
	wantCode(t, "another context", err, 404)
}

func TestEnsureRegistersWhatIsMissingAndNamesWhatIsIncompatible(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	cl, ctx := in.client(t), t.Context()
	want := map[string]int{"a-value": 1, "b-value": 2}
	for range 2 { // the second time nothing is new
		ids, err := Ensure(ctx, cl, map[string]string{"a-value": userV1, "b-value": userV2})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, ids); d != "" {
			t.Errorf("ids (-want +got):\n%s", d)
		}
	}
	ids, err := Ensure(ctx, cl, map[string]string{"a-value": userBroken, "b-value": `{"type":"nonsense"}`, "c-value": userV3})
	if d := cmp.Diff(map[string]int{"c-value": 3}, ids); d != "" {
		t.Errorf("ids beside problems (-want +got):\n%s", d)
	}
	wantInMessage(t, err, "a-value", "not compatible", "MR-REG-005", "b-value", "nonsense", "MR-REG-006")

	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	_, err = Ensure(ctx, cl, map[string]string{"a-value": userV1})
	wantInMessage(t, err, "a-value", "MR-REG-006")
}
