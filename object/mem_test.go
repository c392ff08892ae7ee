package object_test

import (
	"testing"

	"myrmidon/object"
	"myrmidon/object/objecttest"
)

func TestMem(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return object.NewMem() },
		objecttest.Options{KeepsAttrs: true})
}
