"""ONNX models as networks: `gc.from_onnx`. The package onnx is imported only in this folder.

How a file becomes arrays of a trace:

    public.py       the function, which loads all others when it is called
    reading.py      path, bytes or ModelProto -> Model; tensors as numpy arrays, mapped where they have a file
    graph.py        its graphs, nodes and initializers as plain objects; checking.py: what must hold of them
    network.py      the model as a layer; its forward runs
    importer.py     the walk over nodes: a value is an Array, a Known (numbers of the file), a list (a sequence) or None
    call.py         one node as a rule sees it: operands, attributes, bodies
    rule.py         a Python function as the rule of an operator: its signature says how it wants what the node has
    known.py        numbers known while importing, sizes among them
    folding.py      shape arithmetic on such numbers
    older.py        rules of older opsets, by those of the newest
    table.py        operator -> rule: the tables RULES of the files in ops/

A rule file is a module in ops/ (or beside this one) with `RULES: Mapping[str, Callable]`, listed in table.py. A key is
the operator's name, with "domain:" before it outside of ai.onnx ("com.microsoft:FusedMatMul"). A rule is a function of
the newest form of the operator; its parameters before `*` are operands in the order of the schema, those after it
attributes by their names, with the schema's defaults (without one: required). Annotations say what it is given:

    x: Array            a symbolic array (numbers of the file become a parameter or a constant)
    axes: Ints          a tuple of sizes and ints, which must be known while importing
    k: Int              one of them;  p: Float  a number
    x: Known            numbers with their element type;  x: Operand  the value as it is (see importer.py)
    x: Array | None = None      may be left out;  *xs: Array  any number;  no annotation: Array
    *, call: Call       the node itself: opset, wanted outputs, training mode, bodies (`call.body("then_branch")`)

An attribute of an older opset that became an operand (`axes` of Squeeze) is taken by its name. A rule returns an Array,
a Known or numpy array (numbers of the file), a list (a sequence), or a tuple of these for several outputs. It raises
`Unsupported(text)` for what it does not do; all such nodes of a model are listed at once.
"""
