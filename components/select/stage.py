from components import params
NEEDS: tuple[str, ...] = ()
class Params(params.Params):
    model_config = {"extra": "allow"}
