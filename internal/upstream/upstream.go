// Package upstream is the vocabulary in which notebookd speaks of clouds, and
// the one guarded way to call them.
//
// A [Provider] is what a cloud is: it translates one cloud's HTTP dialect into
// [Notebook] values and [Error] kinds. A [Client] carries its calls: call
// budget, circuit breaker, deadline, bounded reading, classification. The
// package knows no cloud, no gRPC and none of the generated contract.
//
// # Adding a cloud
//
//  1. A folder internal/upstream/<kind> with <kind>.go (Config, New and the
//     Provider), wire.go (the JSON shapes, unexported), tests with testdata, and
//     a README.md that tables where each of the cloud's fields and codes goes,
//     with its translation README.zh-CN.md.
//  2. A test that hands the provider and a simulator to the conformance suite
//     in internal/upstream/upstreamtest.
//  3. One line in cmd/server/clouds.go.
//  4. One row in the README's table of clouds.
//
// The contract, the inventory, the service and this package stay as they are:
// a cloud is a string in a resource name, and what it can do is data
// ([Capabilities]).
package upstream

import (
	"context"
	"time"
)

// Provider is one account on one cloud. It translates: it does not retry,
// cache, poll or log. All methods are safe for concurrent use, return when ctx
// ends, and return errors that are, or wrap, an *[Error] or a context error.
// No error or value of a Provider holds a credential.
type Provider interface {
	// Capabilities says what the cloud can do. It does not change over a
	// Provider's life and asks nobody.
	Capabilities() Capabilities

	// Locations returns the account's locations, those that cannot be used
	// included (see [Location.Disabled]). Where the cloud has a discovery call
	// this asks it; otherwise the answer comes from the configuration.
	Locations(ctx context.Context) ([]Location, error)

	// List returns every notebook of a location, each id once, or an error;
	// never a part. A nil slice without an error means that the cloud answered
	// well but gave no list: that is a listing of nothing only to those who
	// know of nothing.
	List(ctx context.Context, location string) ([]Notebook, error)

	// ChangeImage makes exactly one attempt. An error whose Sent is false is a
	// promise that the cloud was not asked.
	ChangeImage(ctx context.Context, req ImageRequest) (Notebook, error)
}

// Finder is a Provider that can also be asked for one notebook by itself. The
// inventory asks before it believes that a notebook is gone.
type Finder interface {
	// Find makes one read. KindNotFound means that the cloud does not show the
	// notebook: together with a complete listing without it, that is proof.
	Find(ctx context.Context, location, id string) (Notebook, error)
}

// Recreator is a Provider whose cloud changes the image of a notebook only by
// making another one ([ChangeImageRecreate]). Each method makes one attempt of
// one step; what follows what is not its business. An error whose Sent is false
// is a promise that the cloud was not asked.
type Recreator interface {
	Finder

	// ResolveImage finds an image that a new notebook in the location can have.
	// image is its reference, or its name and tag. KindImageNotFound: there is
	// none that is complete and for such accelerators.
	ResolveImage(ctx context.Context, location, image, accelerator string) (ImageRef, error)
	// Create asks for a new notebook and returns its id. It is being made when
	// Create returns, under a name that the cloud chose.
	Create(ctx context.Context, location string, spec NotebookSpec) (id string, err error)
	// Stop asks that a notebook stops; keep says whether what is in its own file
	// system is kept for the next start. Success when it has stopped already.
	Stop(ctx context.Context, location, id string, keep bool) error
	// Start asks that a stopped notebook starts.
	Start(ctx context.Context, location, id string) error
	// Rename gives a notebook another name.
	Rename(ctx context.Context, location, id, name string) error
	// Release deletes a notebook for good.
	Release(ctx context.Context, location, id string) error
}

// ImageRef is an image as its cloud wants it named.
type ImageRef struct {
	URI       string // full reference with registry and tag
	Name      string // name and tag
	SizeBytes int64
}

// NotebookSpec is what a new notebook is made of.
type NotebookSpec struct {
	Image         ImageRef
	Accelerator   string // kind of card, as in Accelerator.Type
	Cards         int32
	ResourceGroup string // code of the pool of cards
}

// Capabilities is what a cloud can do, as data.
type Capabilities struct {
	// ChangeImage says how an image is changed.
	ChangeImage ChangeImageMode
	// ImageTypes are the accepted values of ImageRequest.ImageType. Empty
	// means that the cloud has no such notion and the field must be empty.
	ImageTypes []string
	// RegistryCredential says that the cloud takes a login for a private
	// registry with an image change.
	RegistryCredential bool
	// VolatileAttributes are the keys of Notebook.Attributes whose change
	// alone is no news.
	VolatileAttributes []string
}

// ChangeImageMode is how a cloud changes a notebook's image.
type ChangeImageMode int

// The modes.
const (
	// ChangeImageUnsupported means that Provider.ChangeImage always fails with
	// KindUnsupported.
	ChangeImageUnsupported ChangeImageMode = iota
	// ChangeImageInPlace means that the notebook keeps its id, and that it has
	// to be stopped for the change to be free of consequences.
	ChangeImageInPlace
	// ChangeImageRecreate means that the Provider is a Recreator, and that its
	// ChangeImage fails with KindUnsupported.
	ChangeImageRecreate
)

// Location is a part of a cloud that is listed on its own: a CoresHub zone or
// an SCNet region.
type Location struct {
	ID          string
	DisplayName string
	// Disabled, when not empty, says in our words why the account cannot use
	// the location. A disabled location is not an outage and is not polled.
	Disabled string
}

// State is where in its life a notebook is.
type State int

// The states. The zero State stands for every word of a cloud that we do not
// know; Notebook.CloudState keeps the word.
const (
	StateUnspecified State = iota
	StateCreating
	StateStarting
	StateRunning
	StateStopping
	StateStopped
	StateFailed
)

// InTransition reports whether the state is expected to change by itself soon.
func (s State) InTransition() bool {
	return s == StateCreating || s == StateStarting || s == StateStopping
}

// Notebook is one container instance as its cloud described it. Zero values
// mean that the cloud said nothing. It holds no password, no token and no value
// of an environment variable: the dialects drop them while decoding.
type Notebook struct {
	ID           string // the cloud's own id; never empty
	DisplayName  string
	State        State
	CloudState   string // the cloud's own word for State
	StateMessage string // the cloud's own words on why
	Image        Image
	ServerType   string // what runs inside: jupyter, code_server, …

	Resources     Resources
	ResourceGroup ResourceGroup

	Namespace   string
	OwnerID     string
	RootOwnerID string

	CreateTime time.Time
	UpdateTime time.Time
	StopTime   time.Time // planned stop
	ExpireTime time.Time // planned automatic release

	Progress *float64 // of a deployment, in the cloud's own unit; nil when unknown

	Endpoints Endpoints
	Mirrors   Mirrors
	EnvNames  []string // names only, sorted

	// Attributes holds every other documented field under its documented name.
	Attributes map[string]string

	// Unchanged says that the cloud has sent what it sent before; see [Memo]. Only
	// ID, State, ResourceGroup, UpdateTime and, of the accelerator, Type, Available
	// and Max are set then.
	Unchanged bool
	Sent      Sent // what the cloud has sent, for the Memo; zero without one
}

// Image is what a notebook runs.
type Image struct {
	URI         string // full reference with registry and tag
	DisplayName string
	Type        string // a word of Capabilities.ImageTypes
	SizeBytes   int64
}

// Resources is what a notebook is given.
type Resources struct {
	CPUCores    float64
	MemoryBytes int64
	Accelerator Accelerator
}

// Accelerator is the GPU, DCU or other card of a notebook.
type Accelerator struct {
	Type      string // lower case: gpu, dcu, …
	Model     string
	Count     int32
	Available *int32 // cards free in the resource group now; nil when unknown
	Max       *int32 // cards that may be asked for; nil when unknown
}

// ResourceGroup is the pool that a notebook's cards come from.
type ResourceGroup struct {
	ID   string
	Code string
}

// Endpoints is where a notebook can be reached. URLs have neither user
// information nor query, as both may carry credentials.
type Endpoints struct {
	ServiceIP  string
	ServiceURL string
	SSHURL     string
	CustomPort int32
}

// Mirrors names the package mirrors set inside a notebook.
type Mirrors struct {
	Pip   string
	Conda string
	APT   string
}

// ImageRequest asks for one image change.
type ImageRequest struct {
	Location   string
	NotebookID string
	// Namespace is the notebook's namespace as listed; a provider may need it
	// to address the notebook.
	Namespace string
	Image     string
	ImageType string
	// Credential is the login for a private registry, or nil.
	Credential *RegistryCredential
	// RequestID, unless nil, is where the cloud's own id of the call goes, if it
	// gives one with its success.
	RequestID *string
}

// RegistryCredential is a login for a private image registry.
type RegistryCredential struct {
	Username string
	Password Secret
}
